"""etcd decides who: keys, leases, claims and the election, over one port with two transports."""
