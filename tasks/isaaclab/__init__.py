"""Isaac Lab's tasks as ours: their names, what their source says, their environments behind `tasks.env`'s surface."""
