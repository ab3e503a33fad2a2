use std::collections::{BTreeMap, HashMap};

use maud::{Markup, html};

use super::shown::escaped;
use super::timeline::short;
use crate::{Graph, GraphEdge, GraphNode, OperatorRow};

/// More accounts than this are not drawn; the heaviest are.
const NODES: usize = 1_500;
/// The same for links.
const EDGES: usize = 600;
/// Up to this many accounts that belong to nobody else get their name.
const NAMED: usize = 40;
/// Letters of a name.
const LETTERS: usize = 18;

/// The accounts of one group, around a common centre.
struct Cluster<'a> {
    name: &'a str,
    nodes: Vec<(&'a GraphNode, f64)>,
    /// Distance between neighbours on the spiral.
    spacing: f64,
    /// What it needs, its name included.
    radius: f64,
    named: bool,
    centre: (f64, f64),
}

/// Accounts as dots, grouped by operator, with their links.
///
/// The layout is a function of the graph alone: groups are laid around the middle, the largest first, each as near as it
/// fits; within a group accounts lie on a sunflower's spiral (Vogel 1979).
pub(super) fn draw(graph: &Graph, operators: &[OperatorRow], title: &str) -> Markup {
    let clusters = clusters(graph);
    let tones: HashMap<&str, &str> =
        operators.iter().map(|operator| (operator.name.as_str(), super::tone(operator.tone))).collect();
    let places: HashMap<&str, (f64, f64)> = clusters
        .iter()
        .flat_map(|cluster| {
            cluster.nodes.iter().enumerate().map(|(place, (node, _))| (node.id.as_str(), cluster.at(place)))
        })
        .collect();
    let (left, top, width, height) = frame(&clusters);
    html! {
        svg.chart.wide.graph viewBox={ (short(left)) " " (short(top)) " " (short(width)) " " (short(height)) } role="img" aria-label=(title) {
            @for cluster in clusters.iter().filter(|cluster| cluster.nodes.len() > 1) {
                circle.hull.(tones.get(cluster.name).copied().unwrap_or("plain"))
                    cx=(short(cluster.centre.0)) cy=(short(cluster.centre.1)) r=(short(cluster.hull())) {}
            }
            (edges(&graph.edges, &places))
            @for cluster in &clusters {
                @let tone = tones.get(cluster.name).copied().unwrap_or("plain");
                @for (place, (node, radius)) in cluster.nodes.iter().enumerate() {
                    @let (x, y) = cluster.at(place);
                    circle.node.(tone) cx=(short(x)) cy=(short(y)) r=(short(*radius)) { title { (escaped(&node.label)) } }
                }
                @if cluster.named {
                    text.name.(tone) x=(short(cluster.centre.0)) y=(short(cluster.centre.1 + cluster.hull() + 11.0)) {
                        (escaped(&cluster.label()))
                    }
                }
            }
        }
    }
}

fn edges(edges: &[GraphEdge], places: &HashMap<&str, (f64, f64)>) -> Markup {
    let mut heaviest: Vec<&GraphEdge> = edges.iter().filter(|edge| edge.weight.is_finite()).collect();
    heaviest.sort_by(|one, other| {
        other.weight.total_cmp(&one.weight).then_with(|| (&one.a, &one.b).cmp(&(&other.a, &other.b)))
    });
    heaviest.truncate(EDGES);
    let most = heaviest.first().map_or(1.0, |edge| edge.weight.max(f64::MIN_POSITIVE));
    let line = |edge: &&GraphEdge| Some((*places.get(edge.a.as_str())?, *places.get(edge.b.as_str())?));
    html! {
        // Heavier ones on top.
        @for edge in heaviest.iter().rev() {
            @if let Some(((ax, ay), (bx, by))) = line(edge) {
                @let opacity = 0.07 + 0.43 * (edge.weight / most).clamp(0.0, 1.0);
                line.edge x1=(short(ax)) y1=(short(ay)) x2=(short(bx)) y2=(short(by)) stroke-opacity=(format!("{opacity:.2}")) {
                    title { (escaped(&edge.a)) " – " (escaped(&edge.b)) ": " (escaped(&edge.why)) }
                }
            }
        }
    }
}

fn clusters(graph: &Graph) -> Vec<Cluster<'_>> {
    let weight = |node: &GraphNode| if node.size.is_finite() { node.size.max(0.0) } else { 0.0 };
    let mut nodes: Vec<&GraphNode> = graph.nodes.iter().collect();
    nodes.sort_by(|one, other| weight(other).total_cmp(&weight(one)).then_with(|| one.id.cmp(&other.id)));
    nodes.truncate(NODES);
    let largest = nodes.first().map_or(1.0, |node| weight(node).max(f64::MIN_POSITIVE));
    let mut groups: BTreeMap<&str, Vec<(&GraphNode, f64)>> = BTreeMap::new();
    for node in nodes {
        let radius = 3.0 + 9.0 * (weight(node) / largest).sqrt();
        groups.entry(&node.group).or_default().push((node, radius));
    }
    let alone = groups.values().filter(|nodes| nodes.len() == 1).count();
    let mut clusters: Vec<Cluster<'_>> =
        groups.into_iter().map(|(name, nodes)| Cluster::new(name, nodes, alone <= NAMED)).collect();
    clusters.sort_by(|one, other| other.radius.total_cmp(&one.radius).then_with(|| one.name.cmp(other.name)));
    place(&mut clusters);
    clusters
}

impl<'a> Cluster<'a> {
    fn new(name: &'a str, nodes: Vec<(&'a GraphNode, f64)>, name_alone: bool) -> Self {
        let widest = nodes.iter().map(|(_, radius)| *radius).fold(0.0, f64::max);
        // On a sunflower's spiral neighbours are some 1.7 spacings apart.
        let spacing = (2.0 * widest + 2.5) / 1.7;
        let named = nodes.len() > 1 || name_alone;
        let mut cluster = Self { name, nodes, spacing, radius: 0.0, named, centre: (0.0, 0.0) };
        let width = if named { 2.7 * cluster.label().chars().count() as f64 } else { 0.0 };
        cluster.radius = (cluster.hull() + if named { 9.0 } else { 0.0 }).max(width);
        cluster
    }

    fn label(&self) -> String {
        // Who stands alone is known by its own name.
        let name =
            if self.nodes.len() == 1 { self.nodes.first().map_or("", |(node, _)| &node.label) } else { self.name };
        let mut label: String = name.chars().take(LETTERS).collect();
        if name.chars().nth(LETTERS).is_some() {
            label.push('…');
        }
        if self.nodes.len() > 1 { format!("{label} ({})", self.nodes.len()) } else { label }
    }

    /// Radius of the circle around its accounts.
    fn hull(&self) -> f64 {
        let widest = self.nodes.iter().map(|(_, radius)| *radius).fold(0.0, f64::max);
        if self.nodes.len() == 1 { widest } else { self.spacing * (self.nodes.len() as f64).sqrt() + widest + 4.0 }
    }

    fn at(&self, place: usize) -> (f64, f64) {
        let golden = std::f64::consts::PI * (3.0 - 5.0_f64.sqrt());
        if self.nodes.len() == 1 {
            return self.centre;
        }
        let (distance, angle) = (self.spacing * (place as f64 + 0.5).sqrt(), golden * place as f64);
        (self.centre.0 + distance * angle.cos(), self.centre.1 + distance * angle.sin())
    }
}

/// Puts each cluster at the first free place on a flat spiral around the middle.
fn place(clusters: &mut [Cluster<'_>]) {
    let mut step = 0_u32;
    for next in 0..clusters.len() {
        let radius = clusters[next].radius;
        // Where an equally large one found no room, neither will this one.
        if next > 0 && clusters[next - 1].radius > radius {
            step = 0;
        }
        let mut centre = (0.0, 0.0);
        while step < 100_000 {
            let angle = 0.35 * f64::from(step).sqrt() * 2.0;
            let distance = 1.6 * f64::from(step).sqrt();
            centre = (2.4 * distance * angle.cos(), distance * angle.sin());
            let free = clusters[..next].iter().all(|other| {
                let (dx, dy) = (other.centre.0 - centre.0, other.centre.1 - centre.1);
                dx.hypot(dy) >= other.radius + radius + 4.0
            });
            if free {
                break;
            }
            step += 1;
        }
        clusters[next].centre = centre;
    }
}

/// Left, top, width and height of what is drawn.
fn frame(clusters: &[Cluster<'_>]) -> (f64, f64, f64, f64) {
    let (mut left, mut top, mut right, mut bottom) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    for cluster in clusters {
        let ((x, y), radius) = (cluster.centre, cluster.radius + 4.0);
        (left, top) = (left.min(x - radius), top.min(y - radius));
        (right, bottom) = (right.max(x + radius), bottom.max(y + radius + 8.0));
    }
    // A few accounts are not blown up to fill the page.
    let (width, height) = ((right - left).max(620.0), (bottom - top).max(160.0));
    (f64::midpoint(left, right) - width / 2.0, f64::midpoint(top, bottom) - height / 2.0, width, height)
}
