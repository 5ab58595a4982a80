//! placeholder
/// x
pub struct BatchOptions;
/// x
pub struct BatchReport;
/// x
pub fn run_batch(){}
