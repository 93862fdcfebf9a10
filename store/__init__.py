"""The memories of tenure: Postgres remembers (``store.postgres``), etcd decides who (``store.etcd``)."""
