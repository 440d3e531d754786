"""What persons and things do: falls, lying, fights and others; functions of tracked frames.

Every judge takes the frames of one camera in order, and remembers a few seconds of them. So a
restart rebuilds it.
May import: `pipeline/judge` and what that may import.
"""
