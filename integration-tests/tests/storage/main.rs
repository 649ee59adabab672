//! What a disk can do to the real processes, and what a person can do to a disk.

mod copies;
mod damage;
mod faults;
mod gone;
mod logs;
mod refusals;
mod restored;
mod retention;
mod stop;
mod unfinished;

use integration_tests::Role;

const PARTICIPANTS: [Role; 3] = [Role::Inventory, Role::Payment, Role::Order];
