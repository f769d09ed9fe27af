"""Floor 3: PPO training of one reward, held-out evaluation, checkpoints, export and videos.

A training is a function (`rl.train.train`) and a process (`python -m rl.worker RUN_DIR`). It meets the floor
above only through files: `request.json` in, `metrics.jsonl`, `result.json`, checkpoints and TensorBoard
events out. This package is the only one that imports rsl_rl.
"""
