"use strict";
// Draws every figure of the page from the specifications in #specs, without a network.
(async () => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const views = [];
  const options = { renderer: "svg", actions: false };
  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    try {
      const { view } = await vegaEmbed(place, spec, options);
      if (id.startsWith("curves")) views.push({ view, benchmark: id.split("-")[1] });
    } catch (error) {
      place.className = "chart error";
      place.textContent = `This figure cannot be drawn (${error.message}).`;
    }
  }
  // An arm picked in one legend is picked in all of the benchmark's figures.
  let passing = false;
  async function pass(from, rows) {
    if (passing) return;
    passing = true;
    for (const to of views) {
      if (to === from || to.benchmark !== from.benchmark) continue;
      await to.view.data("pick_store", rows.map((row) => ({ ...row }))).runAsync();
    }
    passing = false;
  }
  for (const from of views) {
    from.view.addDataListener("pick_store", (_, rows) => setTimeout(() => pass(from, rows)));
  }
  document.body.dataset.drawn = String(Object.keys(specs).length);
})();
