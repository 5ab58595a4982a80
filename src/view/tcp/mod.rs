//! Connections for people: the list, one in detail, the drawing, the page.

mod compare;
mod detail;
mod explain;
mod flags;
mod follow;
mod html;
mod ladder;
mod list;
mod plot;
mod svg;

pub use compare::compare;
pub use detail::detail;
pub use explain::explain;
pub use flags::flags;
pub use follow::follow;
pub use html::html;
pub use ladder::ladder;
pub use list::{List, connection, list};
pub use svg::svg;
