//! Names of services: the registry's (IANA "Service Name and Transport Protocol Port Number Registry"), as far
//! as one meets them, under what the system's own `services(5)` file says.

use std::collections::HashMap;

/// Ports that carry the same name over TCP and UDP, or that are met over one of them only.
const KNOWN: &str = "echo 7,discard 9,systat 11,daytime 13,chargen 19,ftp-data 20,ftp 21,ssh 22,telnet 23,smtp 25,time 37,\
whois 43,tacacs 49,domain 53,bootps 67,bootpc 68,tftp 69,gopher 70,finger 79,http 80,kerberos 88,pop3 110,sunrpc 111,\
ident 113,nntp 119,ntp 123,epmap 135,netbios-ns 137,netbios-dgm 138,netbios-ssn 139,imap 143,snmp 161,snmptrap 162,\
bgp 179,irc 194,ldap 389,https 443,microsoft-ds 445,kpasswd 464,submissions 465,isakmp 500,syslog 514,printer 515,\
ripng 521,rtsp 554,submission 587,ipp 631,ldaps 636,rsync 873,domain-s 853,iscsi 860,ftps 990,telnets 992,imaps 993,\
pop3s 995,socks 1080,openvpn 1194,ms-sql-s 1433,ms-sql-m 1434,oracle 1521,l2tp 1701,pptp 1723,radius 1812,\
radius-acct 1813,mqtt 1883,ssdp 1900,nfs 2049,zookeeper 2181,docker 2375,docker-s 2376,etcd-client 2379,\
etcd-server 2380,squid 3128,iscsi-target 3260,mysql 3306,ms-wbt-server 3389,stun 3478,svn 3690,mdns 5353,\
ipsec-nat-t 4500,vxlan 4789,upnp 5000,sip 5060,sips 5061,xmpp-client 5222,xmpp-server 5269,postgresql 5432,\
coap 5683,coaps 5684,amqps 5671,amqp 5672,vnc 5900,couchdb 5984,winrm 5985,winrms 5986,x11 6000,redis 6379,\
kube-apiserver 6443,ircs 6697,cassandra 9042,http-alt 8080,https-alt 8443,prometheus 9090,kafka 9092,jetdirect 9100,\
elasticsearch 9200,git 9418,kubelet 10250,zabbix-agent 10050,zabbix-trapper 10051,memcache 11211,mongodb 27017,\
wireguard 51820";

/// Names and numbers.
#[derive(Debug, Clone)]
pub struct Services {
    names: HashMap<(bool, u16), String>,
    numbers: HashMap<(bool, String), u16>,
}

impl Default for Services {
    fn default() -> Self {
        let mut services = Self { names: HashMap::new(), numbers: HashMap::new() };
        for entry in KNOWN.split(',') {
            if let Some((name, port)) = entry.split_once(' ').and_then(|(name, port)| Some((name, port.parse().ok()?)))
            {
                services.add(false, port, name, &[]);
                services.add(true, port, name, &[]);
            }
        }
        services
    }
}

impl Services {
    /// The built-in names with those of a `services(5)` file over them. Lines that make no sense are passed over.
    pub fn with_file(text: &str) -> Self {
        let mut services = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
            let Some((port, proto)) = number.split_once('/') else { continue };
            let udp = match proto {
                "tcp" => false,
                "udp" => true,
                _ => continue,
            };
            if let Ok(port) = port.parse() {
                services.add(udp, port, name, &words.collect::<Vec<_>>());
            }
        }
        services
    }

    fn add(&mut self, udp: bool, port: u16, name: &str, aliases: &[&str]) {
        self.names.insert((udp, port), name.to_owned());
        for name in aliases.iter().chain([&name]) {
            self.numbers.insert((udp, name.to_ascii_lowercase()), port);
        }
    }

    /// The usual service of a port.
    pub fn name(&self, udp: bool, port: u16) -> Option<&str> {
        self.names.get(&(udp, port)).map(String::as_str)
    }

    /// The ports of a name; `*` in it stands for any letters.
    pub fn ports(&self, udp: bool, name: &str) -> Vec<u16> {
        let name = name.to_ascii_lowercase();
        if !name.contains('*') {
            return self.numbers.get(&(udp, name)).copied().into_iter().collect();
        }
        let fits = |known: &&(bool, String)| known.0 == udp && glob(name.as_bytes(), known.1.as_bytes());
        self.numbers.keys().filter(fits).map(|known| self.numbers[known]).collect()
    }

    /// A known name that is close to a mistyped one.
    pub fn near(&self, udp: bool, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let all = self.numbers.keys().filter(|known| known.0 == udp);
        let near = all.map(|known| (distance(&name, &known.1), known.1.as_str()));
        near.filter(|(far, known)| *far <= 2 && *far < known.len().min(name.len())).min().map(|(_, known)| known)
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|octet| *octet == b'*')
}

/// Levenshtein's, over octets.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_file_counts_more() {
        let services = Services::with_file("# x\nweb 80/tcp www # comment\nbad line\nssh 22/tcp\nq 99999/tcp\n");
        assert_eq!(services.name(false, 80), Some("web"));
        assert_eq!(services.name(true, 53), Some("domain"));
        assert_eq!(services.ports(false, "WWW"), [80]);
        assert_eq!(services.ports(false, "https"), [443]);
        let mut many = services.ports(false, "http*");
        many.sort_unstable();
        assert_eq!(many, [80, 443, 8080, 8443]);
        assert_eq!(services.near(false, "posgresql"), Some("postgresql"));
        assert_eq!(services.near(false, "nonsense"), None);
    }
}
