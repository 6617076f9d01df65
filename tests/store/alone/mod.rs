//! Tests that need the server for themselves: a transaction of another test holds back the clean-up that HOT updates live on, and a million
//! rows would slow the others down. `make test-store` runs them one by one after the others.

mod hot;
mod plans;
