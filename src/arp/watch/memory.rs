//! What a watch knows of the stations, kept from run to run in a file.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;

/// Version of the file.
pub const SCHEMA: u32 = 1;
/// More stations than this are a flood of forged ones: the longest silent go.
const MOST: usize = 100_000;
/// Hardware addresses kept of one address.
const HISTORY: usize = 8;

/// A hardware address that had an address before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Whose it was.
    pub mac: MacAddr,
    /// When it was heard with it last, milliseconds since 1970-01-01 UTC.
    pub last_ms: u64,
}

/// An address and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// The address.
    pub ip: IpAddr,
    /// Who has it.
    pub mac: MacAddr,
    /// Heard first, milliseconds since 1970-01-01 UTC.
    pub first_ms: u64,
    /// Heard last.
    pub last_ms: u64,
    /// Who had it before, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
}

/// All stations of a link.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    stations: HashMap<IpAddr, Station>,
}

#[derive(Serialize, Deserialize)]
struct File {
    schema: u32,
    stations: Vec<Station>,
}

/// Why a file is no memory.
#[derive(Debug, thiserror::Error)]
pub enum BadMemory {
    /// Not what [`Memory::to_json`] writes.
    #[error("{line}:{column}: this is no memory of arp watch: {why}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
    /// Written by a later version.
    #[error("the memory has schema {0}, this program knows up to {SCHEMA}")]
    Newer(u32),
}

impl Memory {
    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// With line and column, where it is something else.
    pub fn parse(text: &[u8]) -> Result<Self, BadMemory> {
        let file: File = serde_json::from_slice(text).map_err(|error| BadMemory::Json {
            line: error.line(),
            column: error.column(),
            why: error.to_string(),
        })?;
        if file.schema > SCHEMA {
            return Err(BadMemory::Newer(file.schema));
        }
        let mut memory = Self::default();
        for mut station in file.stations.into_iter().take(MOST) {
            let excess = station.former.len().saturating_sub(HISTORY);
            station.former.drain(..excess);
            memory.stations.insert(station.ip, station);
        }
        Ok(memory)
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let mut stations: Vec<Station> = self.stations.values().cloned().collect();
        stations.sort_by_key(|station| station.ip);
        // Maps with string keys only: it cannot fail.
        serde_json::to_string_pretty(&File { schema: SCHEMA, stations }).unwrap_or_default()
    }

    /// How many addresses are known.
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// What is known of an address.
    pub fn get(&self, ip: IpAddr) -> Option<&Station> {
        self.stations.get(&ip)
    }

    /// Addresses that a station has now.
    pub fn addresses_of(&self, mac: MacAddr) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> =
            self.stations.values().filter(|station| station.mac == mac).map(|station| station.ip).collect();
        all.sort_unstable();
        all
    }

    /// Notes that `mac` was heard with `ip`; gives what was known before.
    pub fn note(&mut self, ip: IpAddr, mac: MacAddr, now_ms: u64) -> Option<Station> {
        if let Some(station) = self.stations.get_mut(&ip) {
            let before = station.clone();
            if station.mac != mac {
                station.former.retain(|former| former.mac != before.mac && former.mac != mac);
                station.former.push(Former { mac: before.mac, last_ms: before.last_ms });
                if station.former.len() > HISTORY {
                    station.former.remove(0);
                }
                station.mac = mac;
            }
            station.last_ms = station.last_ms.max(now_ms);
            return Some(before);
        }
        if self.stations.len() >= MOST {
            self.forget_oldest();
        }
        self.stations.insert(ip, Station { ip, mac, first_ms: now_ms, last_ms: now_ms, former: Vec::new() });
        None
    }

    /// Makes room: a tenth of all, those heard longest ago.
    fn forget_oldest(&mut self) {
        let mut ages: Vec<(u64, IpAddr)> =
            self.stations.values().map(|station| (station.last_ms, station.ip)).collect();
        ages.sort_unstable();
        for (_, ip) in ages.into_iter().take(MOST / 10) {
            self.stations.remove(&ip);
        }
    }
}
