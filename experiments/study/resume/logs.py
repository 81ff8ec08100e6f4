"""Stub until the real one is merged."""


def logged(trainer):
    for logger in trainer.loggers:
        logger.save()
    return {}


def restore_logs(trainer, state):
    pass
