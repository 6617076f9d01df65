//! Faults whose ends take minutes: leases, deadlines and the time after which a node is given up.

mod agent;
mod api_server;
mod controller;
mod docker;
mod external;
mod namespace;
mod node;
mod pooler;
mod postgres;
mod rest;
mod secret;
mod slow_network;
