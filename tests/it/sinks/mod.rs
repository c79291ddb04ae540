//! Sinks: webhooks to a real HTTP receiver, MQTT through mosquitto, NATS through nats-server.

mod broker;
mod delivery;
mod receiver;
mod secure;
mod sessions;
