"""The pure core of Fusewatch: records, time, windows, rules, incidents and how a stage is run."""
