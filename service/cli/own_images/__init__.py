"""`locore serve --images`: a collection of the pictures in folders.

What is new or has changed is described and registered, a few pictures at a time, and what is gone
is removed. It runs in a process beside the service, with a low priority.
"""
