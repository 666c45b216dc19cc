"""The engine as a process of its own: the front asks, the worker owns the device, and either may die alone.

arena.py       shared memory of one lane, and messages whose large arrays lie in it
tasks.py       what the worker is asked, and how it answers when memory or the device gives out
process.py     the worker's side: one thread per lane
lane.py        the front's side of one lane: a pipe, an arena, one question at a time
supervisor.py  starts the worker, notices its death, starts the next one and gives it its books back
engine.py      a gpu_kernels.Engine that asks the worker
fallback.py    what answers while there is no worker
"""
