//! x_tables (iptables-legacy, ip6tables-legacy): the tables in force, out of the kernel's entries
//! (`IPT_SO_GET_ENTRIES`, include/uapi/linux/netfilter_ipv4/ip_tables.h) into iptables-save text.

mod entries;
mod sockopt;

use super::error::NftError;
use super::save::SaveTable;

/// The tables that are registered for one family; none where x_tables is not in use. Nothing is
/// loaded by asking: the kernel lists what there is.
///
/// # Errors
/// [`NftError::Legacy`], by errno without `CAP_NET_ADMIN`.
pub(crate) fn tables(v6: bool, set_name: &dyn Fn(u16) -> Option<String>) -> Result<Vec<SaveTable>, NftError> {
    // Of the calling thread: it may be in another network namespace than the process.
    let path = format!("/proc/thread-self/net/{}", if v6 { "ip6_tables_names" } else { "ip_tables_names" });
    let names = match std::fs::read_to_string(&path) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(NftError::Legacy { what: format!("read {path}"), source }),
    };
    let names: Vec<_> = names.split_whitespace().collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let refused = |name: &str| {
        let what = format!("read the table {name}");
        move |source| NftError::Legacy { what, source }
    };
    let socket = sockopt::open(v6).map_err(refused("list"))?;
    let mut tables = Vec::new();
    for name in names {
        // A table whose rules change between size and entries answers EAGAIN.
        let mut tries = 0;
        let (info, blob) = loop {
            match sockopt::read(&socket, v6, name) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < 10 => tries += 1,
                other => break other.map_err(refused(name))?,
            }
        };
        let table = entries::decode(name, &info, &blob, v6, set_name).ok_or_else(|| NftError::Malformed {
            what: format!("the table {name} of x_tables"),
            why: "its entries do not follow each other".to_owned(),
        })?;
        tables.push(table);
    }
    Ok(tables)
}
