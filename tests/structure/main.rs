//! What the sources must look like: arrows between modules, generated files, budgets.

mod generated;
mod layers;
