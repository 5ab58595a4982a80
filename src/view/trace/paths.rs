//! The ways to a host, drawn: in the terminal, as SVG, as DOT.

use std::fmt::Write as _;

use super::super::text::hang;
use super::super::{Paint, Style};
use super::{Labels, milliseconds};
use crate::trace::graph::{Graph, Node, Spread};

/// Columns of one node in the drawing.
const CELL: usize = 4;

/// A, B, … Z, AA, …
fn letter(mut index: usize) -> String {
    let mut name = Vec::new();
    loop {
        name.push(char::from(b'A' + u8::try_from(index % 26).unwrap_or(0)));
        if index < 26 {
            break;
        }
        index = index / 26 - 1;
    }
    name.iter().rev().collect()
}

/// The drawing and, below it, who is who.
pub fn text(graph: &Graph, labels: &mut dyn Labels, style: Style) -> String {
    let mut out = String::new();
    let layers = graph.layers();
    if graph.width() * CELL + 6 <= style.width && graph.nodes.len() > 1 {
        draw(&mut out, graph, &layers);
        out.push('\n');
    }
    for layer in layers.iter().skip(1) {
        for (at, node) in layer.iter().map(|node| &graph.nodes[*node]).enumerate() {
            let ttl = if at == 0 { format!("{:>3}", node.ttl) } else { "   ".to_owned() };
            let who = name(node, labels);
            let pad = " ".repeat(34_usize.saturating_sub(who.chars().count()).max(1));
            let time = node.rtt_ms.map_or(String::new(), |rtt| format!("{} ms", milliseconds(rtt)));
            let flows = format!("{} flows", node.flows);
            let after: Vec<String> = graph.after(node.id).map(letter).collect();
            let after = if after.is_empty() { String::new() } else { format!("  → {}", after.join(" ")) };
            let how = match graph.balancers.iter().find(|one| one.node == node.id).map(|one| one.spread) {
                Some(Spread::PerFlow) => "  per flow",
                Some(Spread::PerPacket) => "  per packet",
                Some(Spread::Unknown) => "  perhaps",
                None => "",
            };
            let _ = writeln!(
                out,
                "{ttl}  {} {}{pad}{time:<10} {}{after}{}",
                style.paint(Paint::Bold, format!("{:<2}", letter(node.id))),
                style.paint(Paint::Name, who),
                style.paint(Paint::Dim, flows),
                style.paint(Paint::Warn, how)
            );
        }
    }
    out.push_str(&hang("", &graph.says(), style.width));
    out
}

fn name(node: &Node, labels: &mut dyn Labels) -> String {
    match node.address {
        Some(address) => match labels.name(address) {
            Some(name) => format!("{address} ({name})"),
            None => address.to_string(),
        },
        None => "* (silent)".to_owned(),
    }
}

/// The column of each node of a layer, all layers centred on the widest.
fn column(layer: &[usize], at: usize, width: usize) -> usize {
    let left = (width - layer.len()) * CELL / 2;
    left + at * CELL + 1
}

fn draw(out: &mut String, graph: &Graph, layers: &[Vec<usize>]) {
    let width = graph.width();
    for (at, layer) in layers.iter().enumerate() {
        let ttl = graph.nodes.get(layer.first().copied().unwrap_or(0)).map_or(0, |node| node.ttl);
        let mut line = vec![' '; width * CELL + 2];
        for (index, node) in layer.iter().enumerate() {
            let column = column(layer, index, width);
            let mark = if *node == 0 { "you".to_owned() } else { letter(*node) };
            let column = if *node == 0 { column.saturating_sub(1) } else { column };
            line.iter_mut().skip(column).zip(mark.chars()).for_each(|(place, mark)| *place = mark);
        }
        let number = if at == 0 { "   ".to_owned() } else { format!("{ttl:>3}") };
        let _ = writeln!(out, "{number}  {}", line.iter().collect::<String>().trim_end());
        if let Some(next) = layers.get(at + 1) {
            let line = connector(graph, layer, next, width);
            let _ = writeln!(out, "     {}", line.trim_end());
        }
    }
}

/// One line of connectors: each cell knows whether it is joined up, down, left, right.
fn connector(graph: &Graph, layer: &[usize], next: &[usize], width: usize) -> String {
    const UP: u8 = 1;
    const DOWN: u8 = 2;
    const LEFT: u8 = 4;
    const RIGHT: u8 = 8;
    let mut joints = vec![0u8; width * CELL + 2];
    for edge in &graph.edges {
        let (Some(from), Some(to)) =
            (layer.iter().position(|node| *node == edge.from), next.iter().position(|node| *node == edge.to))
        else {
            continue;
        };
        let (above, below) = (column(layer, from, width), column(next, to, width));
        joints[above] |= UP;
        joints[below] |= DOWN;
        let (left, right) = (above.min(below), above.max(below));
        for (place, joint) in joints.iter_mut().enumerate().take(right + 1).skip(left) {
            *joint |= if place < right { RIGHT } else { 0 } | if place > left { LEFT } else { 0 };
        }
    }
    let part = |joint: &u8| match *joint {
        0 => ' ',
        5 => '╯',
        6 => '╮',
        7 => '┤',
        9 => '╰',
        10 => '╭',
        11 => '├',
        12 => '─',
        13 => '┴',
        14 => '┬',
        15 => '┼',
        _ => '│',
    };
    joints.iter().map(part).collect()
}

/// For Graphviz.
pub fn dot(graph: &Graph, labels: &mut dyn Labels) -> String {
    let mut out = String::from("digraph paths {\n  rankdir=TB;\n  node [shape=box, fontname=\"monospace\"];\n");
    for node in &graph.nodes {
        let who = if node.id == 0 { format!("you\\n{}", name(node, labels)) } else { name(node, labels) };
        let shape = if node.end { ", shape=doubleoctagon" } else { "" };
        let _ = writeln!(out, "  n{} [label=\"{}\\nTTL {}\"{shape}];", node.id, escape(&who, '"'), node.ttl);
    }
    for layer in graph.layers() {
        let ids: Vec<String> = layer.iter().map(|node| format!("n{node}")).collect();
        let _ = writeln!(out, "  {{ rank=same; {}; }}", ids.join("; "));
    }
    for edge in &graph.edges {
        let _ = writeln!(out, "  n{} -> n{} [label=\"{}\"];", edge.from, edge.to, edge.flows);
    }
    out.push_str("}\n");
    out
}

fn escape(text: &str, quote: char) -> String {
    text.chars().filter(|c| *c != quote).collect()
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A picture that needs nothing else.
pub fn svg(graph: &Graph, target: &str, labels: &mut dyn Labels) -> String {
    const BOX: usize = 180;
    const GAP: usize = 24;
    const ROW: usize = 84;
    let layers = graph.layers();
    let wide = graph.width().max(1) * (BOX + GAP) + GAP;
    let high = layers.len() * ROW + 70;
    let mut places = vec![(0, 0); graph.nodes.len()];
    for (row, layer) in layers.iter().enumerate() {
        let left = (wide + GAP - layer.len() * (BOX + GAP)) / 2;
        for (at, node) in layer.iter().enumerate() {
            places[*node] = (left + at * (BOX + GAP), 40 + row * ROW);
        }
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" \
         font-family=\"ui-monospace, monospace\" font-size=\"12\">\n<title>Paths to {0}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"{GAP}\" y=\"24\" font-size=\"15\" \
         font-weight=\"bold\">Paths to {0}</text>\n",
        xml(target)
    );
    let most = graph.edges.iter().map(|edge| edge.flows).max().unwrap_or(1).max(1);
    for edge in &graph.edges {
        let (one, two) = (places[edge.from], places[edge.to]);
        let (x1, y1, x2, y2) = (one.0 + BOX / 2, one.1 + 40, two.0 + BOX / 2, two.1);
        let middle = usize::midpoint(y1, y2);
        let thick = 1.0 + 3.0 * f64::from(edge.flows) / f64::from(most);
        let _ = writeln!(
            out,
            "<path d=\"M{x1},{y1} C{x1},{middle} {x2},{middle} {x2},{y2}\" fill=\"none\" stroke=\"#5b7a99\" \
             stroke-width=\"{thick:.1}\" stroke-opacity=\"0.7\"><title>{} flows</title></path>",
            edge.flows
        );
    }
    for node in &graph.nodes {
        let (x, y) = places[node.id];
        let fill = if node.id == 0 || node.end {
            "#dcecdc"
        } else if node.address.is_none() {
            "#eeeeee"
        } else {
            "#e3ecf7"
        };
        let who = node.address.map_or("*".to_owned(), |address| address.to_string());
        let more = match (node.id, node.address.and_then(|address| labels.name(address))) {
            (0, _) => "this host".to_owned(),
            (_, Some(name)) => name,
            _ => node.rtt_ms.map_or(String::new(), |rtt| format!("{} ms", milliseconds(rtt))),
        };
        let more: String = more.chars().take(24).collect();
        let _ = writeln!(
            out,
            "<g><rect x=\"{x}\" y=\"{y}\" width=\"{BOX}\" height=\"40\" rx=\"6\" fill=\"{fill}\" stroke=\"#33475b\"/>\
             <text x=\"{0}\" y=\"{1}\" text-anchor=\"middle\">{2}</text><text x=\"{0}\" y=\"{3}\" text-anchor=\"middle\" \
             fill=\"#556\">{4}</text></g>",
            x + BOX / 2,
            y + 17,
            xml(&who),
            y + 33,
            xml(&more)
        );
    }
    let _ = writeln!(out, "<text x=\"{GAP}\" y=\"{}\" fill=\"#556\">{}</text>\n</svg>", high - 14, xml(&graph.says()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::graph::Edge;

    struct NoLabels;

    impl Labels for NoLabels {
        fn name(&mut self, _: std::net::IpAddr) -> Option<String> {
            None
        }

        fn asn(&mut self, _: std::net::IpAddr) -> Option<String> {
            None
        }
    }

    /// 1 → 3 → 1.
    fn diamond() -> Graph {
        let node = |id: usize, ttl, end| {
            let address = format!("10.0.0.{id}").parse().ok();
            Node { id, ttl, address, end, rtt_ms: Some(0.5), flows: 6 }
        };
        let nodes = vec![
            node(0, 0, false),
            node(1, 1, false),
            node(2, 2, false),
            node(3, 2, false),
            node(4, 2, false),
            node(5, 3, true),
        ];
        let edge = |(from, to)| Edge { from, to, flows: 6 };
        let edges = [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5)].map(edge).to_vec();
        Graph {
            confidence: 0.95,
            flows: 18,
            probes: 60,
            complete: true,
            one_sample_hops: vec![],
            blurred_hops: vec![],
            nodes,
            edges,
            balancers: vec![],
        }
    }

    #[test]
    fn a_diamond_is_drawn_as_one() {
        let text = text(&diamond(), &mut NoLabels, Style::PLAIN);
        let drawing: Vec<&str> = text.lines().take(7).collect();
        assert_eq!(
            drawing,
            [
                "         you",
                "          │",
                "  1       B",
                "      ╭───┼───╮",
                "  2   C   D   E",
                "      ╰───┼───╯",
                "  3       F"
            ]
        );
        assert!(text.contains("3 paths, at most 3 wide; 95 % sure"), "{text}");
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        struct Evil;
        impl Labels for Evil {
            fn name(&mut self, _: std::net::IpAddr) -> Option<String> {
                Some("\"]; <script>&".to_owned())
            }

            fn asn(&mut self, _: std::net::IpAddr) -> Option<String> {
                None
            }
        }
        assert!(!dot(&diamond(), &mut Evil).contains("(\""));
        assert!(!svg(&diamond(), "<x>", &mut Evil).contains("<script"));
        assert!(!svg(&diamond(), "<x>", &mut Evil).contains("<x>"));
    }

    #[test]
    fn letters_go_on_behind_z() {
        assert_eq!([letter(0), letter(25), letter(26), letter(701), letter(702)], ["A", "Z", "AA", "ZZ", "AAA"]);
    }
}
