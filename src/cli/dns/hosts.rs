//! `reachwhy dns hosts`.
use super::super::Global;
use crate::view::Style;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HostsArgs {}

pub(super) fn run(_args: &HostsArgs, _global: &Global, _style: Style) -> anyhow::Result<u8> {
    Ok(0)
}
