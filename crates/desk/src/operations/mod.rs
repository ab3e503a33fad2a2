//! What each operation does, a file a noun.

pub(crate) mod accounts;
pub(crate) mod admin_keys;
pub(crate) mod budgets;
pub(crate) mod grants;
pub(crate) mod house;
pub(crate) mod keys;
pub(crate) mod plans;
pub(crate) mod prices;
pub(crate) mod terms;
pub(crate) mod users;
