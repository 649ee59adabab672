//! Customers who never give up: they send transactions of all kinds, ask again
//! after every answer that leaves them in doubt, and keep a history of what they
//! were told, which a checker holds against the books.

pub(crate) mod books;
mod calls;
pub(crate) mod caretaker;
pub(crate) mod catalog;
pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod history;
mod operator;
pub(crate) mod registrar;
pub(crate) mod tally;
pub(crate) mod witness;
pub(crate) mod work;
