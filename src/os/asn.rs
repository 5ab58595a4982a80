//! Autonomous systems from a local database file (MaxMind DB format: GeoLite2-ASN, DB-IP ASN lite).

use std::net::IpAddr;
use std::path::Path;

use maxminddb::{MaxMindDbError, Reader, geoip2};

/// An opened database.
#[derive(Debug)]
pub struct AsnDatabase(Reader<Vec<u8>>);

impl AsnDatabase {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or is not such a database.
    pub fn open(file: &Path) -> Result<Self, MaxMindDbError> {
        Reader::open_readfile(file).map(Self)
    }

    /// `AS64500 Example Networks`; `None` where the database has nothing, or nothing that can be read.
    pub fn of(&self, address: IpAddr) -> Option<String> {
        let found: geoip2::Asn<'_> = self.0.lookup(address).ok()?.decode().ok()??;
        let number = found.autonomous_system_number?;
        // What a file says must not move a terminal's cursor.
        let name: String =
            found.autonomous_system_organization.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        Some(format!("AS{number} {name}").trim_end().to_owned())
    }
}
