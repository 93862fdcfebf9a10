"""The part of etcd's API that tenure speaks, under a package name of its own (generated, ``make proto``)."""
