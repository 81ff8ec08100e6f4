"""One module a task: how a kind of network is trained and evaluated, as `experiments.study.task.Task` asks for it."""
