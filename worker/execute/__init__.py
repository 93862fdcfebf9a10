"""How handlers are executed: one engine per mode behind one contract (``call``), put together by ``engines``.

Invariant: nothing here speaks to etcd or to a coordinator, and nothing here imports gRPC; user code never runs
on the control loop.
"""
