"""The dashboard: pages for operators, which every coordinator serves, over the public API and in its caller's name.

It stands on the client and knows neither Postgres nor etcd: what it shows, and may do, is what the API says to whoever
is logged in. Nothing of it is kept but what travels in a sealed cookie. See ``docs/DASHBOARD.md``.
"""
