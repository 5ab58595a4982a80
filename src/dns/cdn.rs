//! Delivery networks by the names their customers' aliases lead to.

/// Suffix of the last alias, and whose it is.
const NETWORKS: &[(&str, &str)] = &[
    ("akamai.net", "Akamai"),
    ("akamaiedge.net", "Akamai"),
    ("akamaized.net", "Akamai"),
    ("akadns.net", "Akamai"),
    ("edgekey.net", "Akamai"),
    ("edgesuite.net", "Akamai"),
    ("cloudfront.net", "Amazon CloudFront"),
    ("elb.amazonaws.com", "Amazon load balancer"),
    ("awsglobalaccelerator.com", "Amazon Global Accelerator"),
    ("cdn.cloudflare.net", "Cloudflare"),
    ("fastly.net", "Fastly"),
    ("fastlylb.net", "Fastly"),
    ("azureedge.net", "Azure CDN"),
    ("azurefd.net", "Azure Front Door"),
    ("trafficmanager.net", "Azure Traffic Manager"),
    ("msedge.net", "Microsoft"),
    ("googlehosted.com", "Google"),
    ("ghs.google.com", "Google"),
    ("edgecastcdn.net", "Edgecast"),
    ("lxdns.com", "ChinaNetCenter (Wangsu)"),
    ("wscdns.com", "ChinaNetCenter (Wangsu)"),
    ("wsglb0.com", "ChinaNetCenter (Wangsu)"),
    ("cdn20.com", "ChinaNetCenter (Wangsu)"),
    ("chinacache.net", "ChinaCache"),
    ("ccgslb.com", "ChinaCache"),
    ("kunlunca.com", "Alibaba Cloud CDN"),
    ("kunlunar.com", "Alibaba Cloud CDN"),
    ("kunluncan.com", "Alibaba Cloud CDN"),
    ("kunlungr.com", "Alibaba Cloud CDN"),
    ("alikunlun.com", "Alibaba Cloud CDN"),
    ("tbcache.com", "Alibaba Cloud CDN"),
    ("cdn.dnsv1.com", "Tencent Cloud CDN"),
    ("tdnsv5.com", "Tencent Cloud CDN"),
    ("tcdn.qq.com", "Tencent Cloud CDN"),
    ("jomodns.com", "Baidu Cloud CDN"),
    ("bdydns.com", "Baidu Cloud CDN"),
    ("163jiasu.com", "NetEase CDN"),
    ("netease.com", "NetEase"),
    ("qiniudns.com", "Qiniu"),
    ("b-cdn.net", "Bunny"),
    ("cdn77.org", "CDN77"),
    ("llnwd.net", "Limelight"),
    ("footprint.net", "Lumen"),
    ("incapdns.net", "Imperva"),
    ("stackpathdns.com", "StackPath"),
    ("gcdn.co", "Gcore"),
    ("vercel-dns.com", "Vercel"),
    ("netlify.app", "Netlify"),
    ("github.io", "GitHub Pages"),
    ("cdnga.net", "CDNetworks"),
    ("cdngc.net", "CDNetworks"),
    ("wac.edgecastcdn.net", "Edgecast"),
];

/// Whose network the last alias belongs to.
pub(super) fn named(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let fits = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    NETWORKS.iter().find(|(suffix, _)| fits(suffix)).map(|(_, whose)| *whose)
}

#[cfg(test)]
mod tests {
    #[test]
    fn by_whole_labels() {
        assert_eq!(super::named("e1.a.akamaiedge.net."), Some("Akamai"));
        assert_eq!(super::named("D1.CloudFront.net"), Some("Amazon CloudFront"));
        assert_eq!(super::named("notfastly.net"), None);
    }
}
