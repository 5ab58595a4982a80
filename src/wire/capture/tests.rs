//! Files that are whole, cut, and hostile.

use proptest::prelude::*;

use super::super::pcap::Writer;
use super::*;

type Read = Vec<(u64, u32, Vec<u8>)>;

fn all(bytes: &[u8]) -> (Read, Option<Damage>) {
    let mut reader = match CaptureReader::new(bytes) {
        Ok(reader) => reader,
        Err(damage) => return (Vec::new(), Some(damage)),
    };
    let mut packets = Vec::new();
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push((packet.at_ns, packet.link, packet.bytes.to_vec())),
            Ok(None) => return (packets, None),
            Err(damage) => return (packets, Some(damage)),
        }
    }
}

/// A pcapng file with one Ethernet interface and these packets, in either byte order.
fn pcapng(big: bool, packets: &[&[u8]]) -> Vec<u8> {
    let w = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let h = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let length = w(u32::try_from(body.len() + 12).unwrap());
        [&w(kind)[..], &length, body, &length].concat()
    };
    let mut file = block(SECTION_BE, &[&w(0x1a2b_3c4d)[..], &h(1), &h(0), &[0xff; 8]].concat());
    // Nanoseconds: if_tsresol = 9.
    let options = [&h(9)[..], &h(1), &[9, 0, 0, 0], &h(0), &h(0)].concat();
    file.extend(block(1, &[&h(1)[..], &h(0), &w(65535), &options].concat()));
    file.extend(block(0x0bad_cafe, &[1, 2, 3, 4]));
    for (n, packet) in packets.iter().enumerate() {
        let length = w(u32::try_from(packet.len()).unwrap());
        let mut body = [&w(0)[..], &w(1), &w(u32::try_from(n).unwrap()), &length, &length, packet].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        file.extend(block(6, &body));
    }
    file
}

const SECTION_BE: u32 = 0x0a0d_0d0a;

#[test]
fn both_byte_orders_of_pcapng_read_alike() {
    for big in [false, true] {
        let (packets, damage) = all(&pcapng(big, &[b"abc", b"defgh"]));
        assert!(damage.is_none(), "{damage:?}");
        assert_eq!(packets, [(1 << 32, 1, b"abc".to_vec()), ((1 << 32) + 1, 1, b"defgh".to_vec())]);
    }
}

#[test]
fn a_cut_file_gives_what_it_has_and_says_where_it_ends() {
    let mut writer = Writer::new(1);
    writer.push(5, 3, b"abc");
    writer.push(6, 3, b"def");
    let file = writer.finish();
    let (packets, damage) = all(&file[..file.len() - 1]);
    assert_eq!(packets, [(5, 1, b"abc".to_vec())]);
    assert_eq!(
        damage.unwrap().to_string(),
        "the file ends inside the record that begins at octet 43: 18 of 19 octets are there"
    );
}

#[test]
fn impossible_lengths_are_named() {
    let mut writer = Writer::new(1);
    writer.push(5, 3, b"abc");
    let mut file = writer.finish();
    file[32..36].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    let (packets, damage) = all(&file);
    assert!(packets.is_empty());
    assert!(damage.unwrap().to_string().contains("claims 4294967280 octets"));

    // A block of length 0 would be read for ever.
    let mut endless = pcapng(false, &[b"abc"]);
    let at = endless.len() - 36;
    endless[at + 4..at + 8].copy_from_slice(&[0; 4]);
    let (_, damage) = all(&endless);
    assert!(damage.unwrap().to_string().contains("length is given as 0"));
}

#[test]
fn other_files_are_named() {
    for (bytes, says) in [
        (&b""[..], "empty"),
        (b"ab", "2 octets"),
        (b"snoop\0\0\0\0\0\0\x02", "snoop"),
        (b"hello, this is a text file, no?", "text"),
        (b"\x01\x02\x03\x04\x05", "01020304"),
    ] {
        let (_, damage) = all(bytes);
        let damage = damage.unwrap().to_string();
        assert!(damage.contains(says), "{damage}");
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_any_magic_are_survived(
        magic in prop::sample::select(vec![
            0xa1b2_c3d4_u32, 0xd4c3_b2a1, 0xa1b2_3c4d, 0x4d3c_b2a1, 0xa1b2_cd34, 0x34cd_b2a1, 0x0a0d_0d0a, 0,
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = all(&[&magic.to_be_bytes()[..], &rest].concat());
    }

    #[test]
    fn a_damaged_pcapng_never_gives_more_than_was_there(at in 0usize..200, value in any::<u8>()) {
        let mut file = pcapng(false, &[b"abcd", b"efgh"]);
        let at = at % file.len();
        file[at] = value;
        let (packets, _) = all(&file);
        prop_assert!(packets.len() <= 2);
    }
}
