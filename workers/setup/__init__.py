"""What a new user needs before the first run: a config, and the proof that what it names works.

`init_command` asks and `init_config` writes. `doctor` tries the sources by the readers of `run`
(`source_trial`). `report_target` finds the daemon that runs.
May import: all of `workers/` but the commands.
"""
