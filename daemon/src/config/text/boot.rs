//! The keys `boot-server`, `boot-file` and `boot-params` of `[network.dhcp]`.

use toml_edit::InlineTable;
use trama_dhcp::config::{Boot, BootFile};

use super::address;
use super::field::put_list;
use super::reader::Reader;
use crate::Fault;

/// The kind of client that a boot file is for if it is written as a string: every client.
const ANY_CLIENT: &str = "any";
/// Kinds of clients that have boot files, the more specific first: name, whether the client is
/// iPXE, architectures (RFC 4578, 2.1, and its registry: 7 and 9 are both in use for x86-64; 16 and
/// 19 are x86-64 and arm64 that boot by HTTP).
const BOOT_CLIENTS: [(&str, Option<bool>, &[u16]); 7] = [
    ("ipxe", Some(true), &[]),
    ("bios", None, &[0]),
    ("uefi-http", None, &[16]),
    ("arm64-http", None, &[19]),
    ("uefi", None, &[7, 9, 16]),
    ("arm64", None, &[11, 19]),
    (ANY_CLIENT, None, &[]),
];
/// Longest parameter for a boot file in bytes: an answer is one packet.
const MAX_PARAMETER: usize = 255;
const MAX_PARAMETERS: usize = 4;

/// The three keys.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>) -> Boot {
    let (server, server6) = address::read_pair(reader, "boot-server").unwrap_or_default();
    Boot {
        server,
        server_name: String::new(),
        server6,
        files: read_files(reader),
        parameters: read_parameters(reader),
    }
}

/// A string, or a table by kind of client.
fn read_files(reader: &mut Reader<'_, '_, '_>) -> Vec<BootFile> {
    let stated = if reader.is_string("boot-file") {
        let name = reader.string("boot-file").unwrap_or_default();
        vec![(ANY_CLIENT.to_owned(), name)]
    } else {
        reader.map("boot-file").unwrap_or_default()
    };
    let unknown =
        stated.iter().find(|(kind, _)| !BOOT_CLIENTS.iter().any(|(name, ..)| name == kind));
    if let Some((kind, _)) = unknown {
        reader.converted::<()>("boot-file", None, || {
            let known = BOOT_CLIENTS.map(|(name, ..)| name).join(", ");
            Fault::new(format!("{kind:?} is not a kind of client"), format!("use {known}"))
        });
    }
    let file = |(kind, ipxe, architectures): &(&str, _, &[u16])| {
        let (_, name) = stated.iter().find(|(stated, _)| stated == kind)?;
        Some(BootFile { architectures: architectures.to_vec(), ipxe: *ipxe, name: name.clone() })
    };
    BOOT_CLIENTS.iter().filter_map(file).collect()
}

fn read_parameters(reader: &mut Reader<'_, '_, '_>) -> Vec<String> {
    let mut parameters = Vec::new();
    for (offset, text) in reader.strings("boot-params").unwrap_or_default() {
        if text.len() > MAX_PARAMETER || parameters.len() == MAX_PARAMETERS {
            let remedy = "write at most 4 parameters of at most 255 bytes";
            reader.fault("boot-params", offset, Fault::new("is too long", remedy));
            break;
        }
        parameters.push(text);
    }
    parameters
}

/// Writes the keys that are stated.
pub(super) fn put(table: &mut InlineTable, boot: &Boot) {
    let server = address::pair_value(boot.server, boot.server6);
    table.extend(server.map(|value| ("boot-server", value)));
    let kind = |file: &BootFile| {
        let kinds = BOOT_CLIENTS.iter();
        let mut same = kinds.filter(|(_, ipxe, architectures)| {
            *ipxe == file.ipxe && *architectures == file.architectures
        });
        same.next().map(|(name, ..)| *name)
    };
    let files = boot.files.iter().filter_map(|file| Some((kind(file)?, file.name.as_str())));
    let files = InlineTable::from_iter(files);
    if !files.is_empty() {
        table.insert("boot-file", files.into());
    }
    put_list(table, "boot-params", boot.parameters.iter().cloned());
}
