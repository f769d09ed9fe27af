"""Training models of real robots, one file a robot, made by MjSpec from the models in mujoco_menagerie."""
