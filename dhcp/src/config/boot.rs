//! Network boot: the boot files, and which client gets which.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Where clients boot from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Boot {
    /// The TFTP server's address (`siaddr`); `None` is not sent.
    pub server: Option<Ipv4Addr>,
    /// The TFTP server's name (`sname`, option 66); if empty, its address is sent.
    pub server_name: String,
    /// The TFTP server for boot files that are not URIs, by DHCPv6; without it, those files are
    /// not sent.
    pub server6: Option<Ipv6Addr>,
    /// Boot files; the first that suits the client is named (`file`, option 67; DHCPv6 option 59).
    pub files: Vec<BootFile>,
    /// Parameters for the boot file, each of at most 65535 octets (DHCPv6 option 60).
    pub parameters: Vec<String>,
}

/// A boot file and the clients that it is for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BootFile {
    /// Only for these architectures (RFC 4578, 2.1; 0 is BIOS, 7 is x86-64 UEFI); for all if empty.
    pub architectures: Vec<u16>,
    /// Only for iPXE, or only for others.
    pub ipxe: Option<bool>,
    /// The file's name for the TFTP server, or a URI.
    pub name: String,
}

/// Prefix of the vendor class of clients that boot by HTTP (UEFI 2.10, 24.7). Such a client accepts
/// only answers whose vendor class begins with it too.
pub(crate) const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// How a client boots, from its options.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootClient {
    /// Its processor architecture (RFC 4578, 2.1, and the registry of RFC 5970).
    pub architecture: Option<u16>,
    /// Whether it is iPXE.
    pub ipxe: bool,
    /// Whether it is firmware that boots by HTTP and accepts only a URI.
    pub http: bool,
}

impl BootClient {
    /// Returns the first boot file that suits the client.
    pub fn choose<'a>(&self, files: &'a [BootFile]) -> Option<&'a str> {
        let suits = |file: &&BootFile| {
            file.ipxe.is_none_or(|ipxe| ipxe == self.ipxe)
                && (file.architectures.is_empty()
                    || self.architecture.is_some_and(|it| file.architectures.contains(&it)))
                && (!self.http || is_http(&file.name))
        };
        files.iter().find(suits).map(|file| file.name.as_str())
    }
}

fn is_http(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}
