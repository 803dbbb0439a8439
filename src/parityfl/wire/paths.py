"""The endpoints at which coordinator and devices speak, and prove who they are where that is asked for."""

REGISTER = "/register"
STATUS_UPDATE = "/status_update"
WORK = "/work"
RESULT = WORK + "/{work_id}/result"
TRAIN = "/train"
EVALUATE = "/evaluate"
INITIAL = "/initial"

PROVED = frozenset({REGISTER, STATUS_UPDATE, WORK, TRAIN, EVALUATE, INITIAL})
"""What the paths of all these begin with."""
