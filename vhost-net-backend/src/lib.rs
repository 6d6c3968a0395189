//! virtio-net over vhost-user: the protocol session, its features and its reconnects.
