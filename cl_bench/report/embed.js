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
      if (id.startsWith("curves")) views.push(view);
    } catch (error) {
      place.className = "chart error";
      place.textContent = `This figure cannot be drawn (${error.message}).`;
    }
  }
  // An arm picked in one legend is picked in all of them.
  let passing = false;
  async function pass(from, rows) {
    if (passing) return;
    passing = true;
    const copy = rows.map((row) => ({ ...row }));
    for (const view of views.filter((v) => v !== from)) {
      await view.data("pick_store", copy.map((row) => ({ ...row }))).runAsync();
    }
    passing = false;
  }
  for (const view of views) {
    view.addDataListener("pick_store", (_, rows) => setTimeout(() => pass(view, rows)));
  }
  document.body.dataset.drawn = String(Object.keys(specs).length);
})();
