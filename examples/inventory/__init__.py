"""Takes stock of the machine: what is installed, whether it is as it was installed, and under which licences.

``handlers`` are the jobs (discover, scan, policy), ``demo`` runs them; ``python_packages`` and ``debian_packages``
read the machine, ``scanning`` looks at files.
"""
