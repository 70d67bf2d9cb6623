"""The length of a stream, in tasks and in steps."""


def tasks(num_tasks: int | None, total_steps: int | None, steps_per_task: int) -> int:
    """Tasks of a stream: `num_tasks`, or None: as many whole ones as `total_steps` hold.

    With both it has `num_tasks` and ends within `total_steps`. Raises ValueError where
    both are None, where `total_steps` hold fewer than two tasks, so that nothing would
    ever change, and where they hold fewer than `num_tasks`.
    """
    if total_steps is None and num_tasks is None:
        raise ValueError(
            "num_tasks=None is as many tasks as total_steps hold, and total_steps=None: "
            "give one of the two."
        )
    if total_steps is None or steps_per_task < 1:  # the spec's own check tells of it
        return 1 if num_tasks is None else num_tasks
    held = total_steps // steps_per_task
    if held < 2:
        raise ValueError(
            f"steps_per_task={steps_per_task}, the change period, is more than half of "
            f"the stream, total_steps={total_steps}: it would never change. "
            f"steps_per_task={max(total_steps // 2, 1)} or less works, and so does "
            "total_steps=None with num_tasks=1, a control without changes."
        )
    if num_tasks is not None and num_tasks > held:
        raise ValueError(
            f"total_steps={total_steps} hold {held} tasks of steps_per_task="
            f"{steps_per_task}, not num_tasks={num_tasks}: num_tasks={held} or fewer "
            "works, or None for all of them, and so does total_steps=None."
        )
    return held if num_tasks is None else num_tasks
