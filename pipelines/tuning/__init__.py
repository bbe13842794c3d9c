"""A search by Ray Tune: what is asked (study), what a trial does, and how it is watched and told.

Modules here import Ray inside functions or not at all, but for ``trial``, ``callback`` and
``schedulers``, which only a running search imports.
"""
