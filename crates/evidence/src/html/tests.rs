use std::collections::BTreeMap;

use anbiq_domain::{Digest, Money, Seeded};

use super::*;
use crate::{
    Among, Basis, Fact, Findings, FoundAccount, FoundOperator, FoundStage, GrantRow, Graph, GraphEdge, GraphNode,
    Licence, Mark, Measure, OperatorTest, OtherTest, PartTest, Plot, Question, StudentRow, SuspectPage, Table,
    TermsPage, Timeline, TimelineBucket, Value,
};

const HOUR: i64 = 3_600_000;
const START: i64 = 1_767_225_600_000;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_milliseconds(START + hours * HOUR)
}

/// A dossier with something of everything.
fn sample(language: Language) -> Dossier {
    let mut random = Seeded::new(4);
    let series = ["honest accounts", "licensee", "op-acct-07"].map(str::to_owned).to_vec();
    let buckets = (0..72).map(|hour| TimelineBucket {
        start: at(hour),
        counts: BTreeMap::from([
            (series[0].clone(), 20 + random.below(15) as u64),
            (series[1].clone(), if hour % 24 < 8 { 12 } else { 0 }),
            (series[2].clone(), if hour > 20 { 38 + random.below(6) as u64 } else { 0 }),
        ]),
    });
    let timeline = Timeline {
        unit: "exchanges an hour".to_owned(),
        buckets: buckets.collect(),
        series,
        marks: vec![
            Mark { at: at(2), label: "The licence was granted.".to_owned() },
            Mark { at: at(21), label: "The 40 accounts begin.".to_owned() },
        ],
    };
    Dossier {
        format: 1,
        language,
        title: "Forty quiet accounts".to_owned(),
        made_at: at(100),
        simulated: true,
        summary: vec![
            "Forty accounts are one operator that took 2,812 answers against the terms.".to_owned(),
            "The suspect was trained on answers that were served to that operator.".to_owned(),
        ],
        timeline,
        graph: graph(&mut random),
        operators: vec![
            operator("op-acct-07", "campaign", Tone::Finding, 40),
            operator("licensee", "within its grant", Tone::Good, 1),
            operator("honest-3", "unremarkable", Tone::Plain, 1),
        ],
        suspects: vec![
            suspect("suspect", Strength::Established, 0.35, &mut random),
            suspect("innocent", Strength::NotShown, 0.0, &mut random),
            suspect("acquitted", Strength::Contradicted, 0.0, &mut random),
        ],
        tests: vec![
            other(Question::Weights, Basis::Exact, Strength::Established),
            other(Question::Style, Basis::Controls, Strength::NotShown),
        ],
        licence: licence(),
        students: vec![StudentRow {
            name: "licensed".to_owned(),
            trained_on: "the licensee's capture".to_owned(),
            parameters: 1_204_224,
            tokens: 181_000,
            cost: Money::from_dollars(3),
            cpu_seconds: 84.2,
            held_out_loss: Some(1.284),
            agreement: Some(0.71),
            accuracy: None,
            beside: "loss 1.611".to_owned(),
        }],
        provenance: Provenance {
            journal: "journal-1".to_owned(),
            root: Digest::of(b"root"),
            size: 4_321,
            disclosed: 812,
            signer: "ab".repeat(32),
            software: "anbiq 0.1.0".to_owned(),
            facts: vec![("Seed".to_owned(), "7".to_owned())],
        },
        how_to_verify: vec!["Run `anbiq verify` on this folder.".to_owned()],
    }
}

/// To as many digits as survive a JSON reader that is not exact in the last bit.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn graph(random: &mut Seeded) -> Graph {
    let node = |number: usize, group: &str, size: f64| GraphNode {
        id: format!("acct-{number:02}"),
        label: format!("acct-{number:02}"),
        group: group.to_owned(),
        size,
    };
    let ring = (0..40).map(|number| node(number, "op-acct-07", 60.0 + number as f64));
    let licensee = std::iter::once(GraphNode { label: "licensee".to_owned(), ..node(90, "licensee", 700.0) });
    let alone = (50..66).map(|number| node(number, &format!("honest-{number}"), 20.0 + number as f64));
    let nodes = ring.chain(licensee).chain(alone).collect();
    let edges = (0..90)
        .map(|_| GraphEdge {
            a: format!("acct-{:02}", random.below(40)),
            b: format!("acct-{:02}", random.below(40)),
            weight: rounded(2.0 + random.unit() * 9.0),
            why: "shared networks; prompts from one list".to_owned(),
        })
        .collect();
    Graph { nodes, edges }
}

fn operator(name: &str, standing: &str, tone: Tone, accounts: u64) -> OperatorRow {
    let reason = |words: &str, weight| Reason { words: words.to_owned(), weight: Some(weight) };
    OperatorRow {
        name: name.to_owned(),
        standing: standing.to_owned(),
        tone,
        accounts,
        exchanges: 2_812,
        output_tokens: 168_720,
        cost: Money::from_nanos(1_687_200_000),
        first: at(21),
        last: at(71),
        certainty: (accounts > 1).then_some(0.9997),
        purpose: "Prompts of all kinds in equal parts, none twice: a harvest.".to_owned(),
        reasons: vec![
            reason("They divide one list of prompts: fewer repeats than chance would give.", 9.2),
            reason("They come from 3 networks.", 4.1),
            reason("They were opened within two hours.", 2.4),
        ],
        counter: vec!["They pay with different cards.".to_owned()],
    }
}

fn suspect(name: &str, verdict: Strength, shift: f64, random: &mut Seeded) -> SuspectPage {
    let differences: Vec<f64> = (0..800).map(|_| rounded(random.normal() + shift)).collect();
    let mut log10_e = Vec::new();
    let mut sum = 0.0;
    for difference in &differences {
        sum += difference.signum() * 0.2 * shift.max(0.05) - 0.002;
        log10_e.push(rounded(sum));
    }
    let wins = differences.iter().filter(|difference| **difference > 0.0).count() as u64;
    let established = verdict == Strength::Established;
    SuspectPage {
        name: name.to_owned(),
        question: Question::Twins,
        file: format!("trace-{name}.json"),
        teacher: "teacher".to_owned(),
        verdict,
        words: "It prefers what was served over what was not.".to_owned(),
        points_at: established.then(|| "op-acct-07".to_owned()),
        null_hypothesis: "The suspect saw nothing that depends on which of the two draws was served.".to_owned(),
        randomness: "The coin that chose one of two draws.".to_owned(),
        error_rate: "At most one in twenty.".to_owned(),
        statistic: "Signed ranks of log p_suspect - log p_teacher.".to_owned(),
        p_value: if established { 3.21e-17 } else { 0.412 },
        log10_e: *log10_e.last().unwrap(),
        n: 800,
        wins,
        plot: Plot { differences, log10_e },
        per_operator: vec![OperatorTest {
            operator: "op-acct-07".to_owned(),
            accounts: 40,
            n: 500,
            wins: 320,
            p: 2e-11,
            p_holm: 6e-11,
            log10_e: 8.2,
        }],
        per_part: vec![PartTest {
            part: "month 2026-10".to_owned(),
            n: 400,
            wins: 250,
            p: 4e-7,
            p_holm: 1.2e-6,
            log10_e: 4.1,
        }],
        power: vec!["800 pairs show a win rate of 0.60 with a chance of 9 in 10.".to_owned()],
        excluded: match verdict {
            Strength::Contradicted => vec!["It prefers the served in at most 0.54 of the pairs.".to_owned()],
            _ => Vec::new(),
        },
        counter_evidence: vec!["The length alone predicts nothing.".to_owned()],
        rival_explanations: vec!["The answers were published.".to_owned()],
        does_not_show: vec!["Who took the answers.".to_owned()],
    }
}

/// A test with values of all kinds.
fn other(question: Question, basis: Basis, verdict: Strength) -> OtherTest {
    let rows = vec![
        vec![
            Value::Text("units".to_owned()),
            Value::Count(4_096),
            Value::Number(-0.25),
            Value::Interval(0.1, 0.9999),
            Value::Probability(0.04),
            Value::Power(-265.3),
            Value::Share(0.5),
            Value::Verdict(verdict),
        ],
        vec![Value::Text("none".to_owned())],
    ];
    let controls = (0..40).map(|number: i32| (format!("control-{number}"), rounded(f64::from(number * number))));
    OtherTest {
        question,
        subject: "suspect".to_owned(),
        file: "weights-suspect.json".to_owned(),
        basis,
        verdict,
        words: vec!["Its weights are not independent.".to_owned()],
        facts: vec![
            Fact { measure: Measure::Commitment, value: Value::Code("ab".repeat(32)) },
            Fact { measure: Measure::Agreement, value: Value::Of(3, 4) },
        ],
        tables: vec![Table {
            measures: vec![
                Measure::What,
                Measure::Places,
                Measure::Score,
                Measure::Interval,
                Measure::P,
                Measure::PHolm,
                Measure::NameShare,
                Measure::Verdict,
            ],
            rows,
        }],
        among: vec![Among { suspect: "suspect".to_owned(), score: 100.0, controls: controls.collect() }],
        null_hypothesis: "The weights are independent.".to_owned(),
        randomness: "The orders.".to_owned(),
        error_rate: "At most one in twenty.".to_owned(),
        statistic: "Hits.".to_owned(),
        recomputed: "p-values".to_owned(),
        on_trust: "hits".to_owned(),
        rival_explanations: vec!["A common ancestor.".to_owned()],
        does_not_show: vec!["Distillation.".to_owned()],
    }
}

fn licence() -> Licence {
    Licence {
        terms: vec![TermsPage {
            name: "terms version 1".to_owned(),
            teacher: "teacher".to_owned(),
            permission: "only with a grant".to_owned(),
            conditions: vec!["The student must not compete.".to_owned()],
            text: "You may use the answers.\nYou may not train on them.".to_owned(),
        }],
        grants: vec![GrantRow {
            grant: "grant-1".to_owned(),
            account: "licensee".to_owned(),
            purpose: "a classifier".to_owned(),
            conditions: vec!["at most 200,000 tokens".to_owned()],
            given: at(2),
            expires: None,
            state: "kept".to_owned(),
        }],
    }
}

/// Tags that are open at the end, or the first that closes another.
fn unbalanced(page: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name: String = tag.trim_start_matches('/').chars().take_while(|letter| !letter.is_whitespace()).collect();
        if tag.starts_with('!') || ["meta", "br"].contains(&name.as_str()) {
            continue;
        }
        if !tag.starts_with('/') {
            open.push(name);
        } else if open.pop().as_ref() != Some(&name) {
            return vec![format!("</{name}>")];
        }
    }
    open
}

#[test]
fn a_page_stands_alone_in_both_languages() {
    for language in [Language::English, Language::Arabic] {
        let page = page(&sample(language));
        assert!(unbalanced(&page).is_empty(), "{:?}", unbalanced(&page));
        for loads in ["<script", "http://", "https://", "src=", "@import", "url(", " style=", "<link", "NaN", "inf"] {
            assert!(!page.replace("information", "").contains(loads), "{loads}");
        }
        assert_eq!(page.contains("<html lang=\"ar\" dir=\"rtl\">"), language == Language::Arabic);
        assert!(page.lines().count() > 300);
        assert_eq!(page, super::page(&sample(language)), "the same dossier gives the same bytes");
    }
}

#[test]
fn the_two_columns_are_kept_apart() {
    let page = page(&sample(Language::English));
    let column = |name: &str| {
        let start = page.find(&format!("<h3>{name}</h3>")).unwrap();
        let end = start + page[start..].find("</ul>").unwrap();
        page[start..end].lines().filter(|line| line.contains("<li>")).map(words).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(column("Exact evidence"), @r"
    suspect: Does it prefer what was served? Established
    innocent: Does it prefer what was served? Not shown
    acquitted: Does it prefer what was served? Not shown
    suspect: Are its weights derived from the teacher's? Established
    ");
    // That something is excluded rests on calibration students, and so stands on the other side.
    insta::assert_snapshot!(column("Evidence that rests on controls"), @r"
    acquitted: Is training like that of the calibration students excluded? Contradicted
    suspect: Does it write as the teacher's family does? Not shown
    ");
    assert_eq!(page.matches("The two columns are never added up").count(), 1);
}

/// A line of a page without its tags.
fn words(line: &str) -> String {
    let text = line.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    text.collect::<String>().trim().to_owned()
}

#[test]
fn an_empty_dossier_is_a_page_too() {
    let mut dossier = sample(Language::English);
    (dossier.timeline, dossier.graph, dossier.licence) = Default::default();
    (dossier.operators, dossier.students, dossier.summary) = Default::default();
    for suspect in &mut dossier.suspects {
        (suspect.plot, suspect.n, suspect.wins) = Default::default();
    }
    assert!(unbalanced(&page(&dossier)).is_empty());
    dossier.suspects.clear();
    dossier.tests.clear();
    assert!(unbalanced(&page(&dossier)).is_empty());
}

#[test]
fn strange_numbers_do_not_break_a_page() {
    let mut dossier = sample(Language::English);
    let strange = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 0.0, -0.0, f64::MIN_POSITIVE];
    for suspect in &mut dossier.suspects {
        suspect.plot = Plot { differences: strange.to_vec(), log10_e: strange.to_vec() };
        (suspect.p_value, suspect.log10_e) = (f64::NAN, f64::INFINITY);
    }
    for test in &mut dossier.tests {
        test.among[0].controls = strange.iter().map(|score| ("control".to_owned(), *score)).collect();
        test.among.push(Among { suspect: "s".to_owned(), score: f64::NAN, controls: Vec::new() });
        let numbers = strange
            .iter()
            .flat_map(|n| [Value::Number(*n), Value::Probability(*n), Value::Power(*n), Value::Share(*n)]);
        test.tables[0].rows.push(numbers.collect());
    }
    for (node, size) in dossier.graph.nodes.iter_mut().zip(strange) {
        node.size = size;
    }
    for (edge, weight) in dossier.graph.edges.iter_mut().zip(strange) {
        edge.weight = weight;
    }
    dossier.timeline.buckets.push(TimelineBucket {
        start: Timestamp::from_milliseconds(i64::MAX),
        counts: BTreeMap::from([("licensee".to_owned(), u64::MAX), ("op-acct-07".to_owned(), u64::MAX)]),
    });
    dossier.timeline.marks.push(Mark { at: Timestamp::from_milliseconds(i64::MIN), label: String::new() });
    assert!(unbalanced(&page(&dossier)).is_empty());
}

/// Findings with something of everything.
fn found() -> Findings {
    let mut random = Seeded::new(4);
    let dossier = sample(Language::English);
    let stage = |name: &str, hours: i64, share: f64| FoundStage {
        name: name.to_owned(),
        tone: Tone::Warning,
        since: at(hours),
        accounts: 38,
        exchanges: 120,
        output_tokens: 9_000,
        cost: Money::from_dollars(1),
        share,
    };
    let operator = |row: &OperatorRow| FoundOperator {
        row: row.clone(),
        why: vec!["The terms require a grant, and nobody has one.".to_owned()],
        stage: Some("act: 40.8 nats of 14.5".to_owned()),
        stages: vec![stage("review", 24, 0.04), stage("act", 30, 0.2)],
        timeline: Timeline { series: vec!["op-acct-07".to_owned()], ..dossier.timeline.clone() },
        fits: vec![("harvest".to_owned(), 5.1), ("chat".to_owned(), -7.2)],
        survival: vec![("payment".to_owned(), 1.0, 0.9), ("prompts".to_owned(), 0.8, 0.7)],
        accounts: (0..12)
            .map(|number| FoundAccount {
                name: format!("acct-{number:02}"),
                opened: Some(at(-30)),
                exchanges: 70,
                output_tokens: 4_200,
                per_hour: 1.1,
                certainty: 0.999,
                reasons: row.reasons.clone(),
            })
            .collect(),
        edges: dossier.graph.edges[..20].to_vec(),
        more_edges: 70,
    };
    Findings {
        title: "What the journal shows".to_owned(),
        simulated: true,
        facts: vec![("Accounts".to_owned(), "57".to_owned())],
        summary: dossier.summary.clone(),
        notes: vec!["The traffic is composed.".to_owned()],
        graph: graph(&mut random),
        operators: dossier.operators.iter().map(operator).collect(),
        others: "16 operators of one account each are unremarkable.".to_owned(),
    }
}

#[test]
fn findings_are_a_page_that_stands_alone() {
    for found in [found(), Findings::default()] {
        let page = findings(&found);
        assert!(unbalanced(&page).is_empty(), "{:?}", unbalanced(&page));
        for loads in ["<script", "http://", "https://", "src=", "@import", "url(", " style=", "<link", "NaN"] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert_eq!(page.contains("<svg class=\"chart wide graph\""), !found.operators.is_empty());
    }
    let page = findings(&found());
    for shown in ["acct-00", "shared networks; prompts from one list", "They pay with different cards."] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(page.contains("28 more accounts are in the JSON report."));
}

#[test]
fn nothing_from_outside_acts_in_findings() {
    let hostile = "</title></svg></script><script>alert('\u{202e}')\" onload=\"x";
    let mut value = serde_json::to_value(found()).unwrap();
    fill(&mut value, hostile);
    let page = findings(&serde_json::from_value(value).unwrap());
    assert!(!page.contains("<script") && !page.contains("\" onload=") && !page.contains('\u{202e}'));
    assert!(page.matches("&lt;script&gt;alert('[U+202E]')&quot; onload=&quot;x").count() > 100);
    assert!(unbalanced(&page).is_empty(), "{:?}", unbalanced(&page));
}

/// Every string of `value` becomes `text`.
fn fill(value: &mut serde_json::Value, text: &str) {
    use serde_json::Value;
    match value {
        Value::String(string) => *string = text.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, text)),
        Value::Object(members) => {
            let fixed = [
                "language", "tone", "verdict", "cost", "root", "question", "basis", "measure", "measures", "since",
                "opened",
            ];
            for (name, member) in members.iter_mut().filter(|(name, _)| !fixed.contains(&name.as_str())) {
                let _ = name;
                fill(member, text);
            }
        }
        _ => {}
    }
}

#[test]
fn nothing_from_outside_acts_on_the_page_or_the_eye() {
    for (hostile, shown) in [
        ("</script><script>alert(1)</script>", "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\" onload=\"x", "&quot; onload=&quot;x"),
        ("</title></svg><img src=x>", "&lt;/title&gt;&lt;/svg&gt;&lt;img src=x&gt;"),
        ("\u{1b}[31mred\u{7}\r", "\u{241b}[31mred\u{2407}\u{240d}"),
        ("gpj.\u{202e}exe\u{2066}\u{200f}", "gpj.[U+202E]exe[U+2066][U+200F]"),
        ("a\u{0}b\u{85}c\u{feff}", "a\u{2400}b[U+0085]c[U+FEFF]"),
        ("&amp; <!-- ]]>", "&amp;amp; &lt;!-- ]]&gt;"),
    ] {
        let mut value = serde_json::to_value(sample(Language::English)).unwrap();
        fill(&mut value, hostile);
        let page = page(&serde_json::from_value(value).unwrap());
        assert!(!page.contains(hostile), "{hostile:?}");
        assert!(page.matches(shown).count() > 40, "{hostile:?}");
        assert!(unbalanced(&page).is_empty(), "{hostile:?}: {:?}", unbalanced(&page));
        for letter in page.chars() {
            assert!(letter == '\n' || !letter.is_control(), "{letter:?}");
            assert!(!matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
        }
        assert!(!page.contains("<img") && !page.contains("<script"));
    }
}

#[test]
fn fragments_keep_their_form() {
    let say = Say(Language::English);
    insta::assert_snapshot!(moment(at(3)).into_string(), @r#"<time datetime="2026-01-01T03:00:00Z" title="2026-01-01T03:00:00Z" dir="ltr">2026-01-01 03:00</time>"#);
    insta::assert_snapshot!(operator_row(&operator("op", "campaign", Tone::Finding, 40), say).into_string(), @r#"<tr><th scope="row"><bdi>op</bdi></th><td><span class="badge finding"><bdi>campaign</bdi></span></td><td class="number">40</td><td class="number">2,812</td><td class="number">168,720</td><td class="number"><span class="n" dir="ltr">$1.6872</span></td><td class="number"><span class="n" dir="ltr">&gt; 99.9 %</span></td></tr>"#);
    insta::assert_snapshot!(scale(Strength::Strong).into_string(), @r#"<svg class="scale" viewBox="0 0 96 8" aria-hidden="true"><rect class="on" x="0" y="0" width="30" height="8" rx="2"></rect><rect class="on" x="33" y="0" width="30" height="8" rx="2"></rect><rect class="" x="66" y="0" width="30" height="8" rx="2"></rect></svg>"#);
    insta::assert_snapshot!(meter(0.5).into_string(), @r#"<svg class="meter" viewBox="0 0 60 8" aria-hidden="true"><rect class="rail" x="0" y="0" width="60" height="8" rx="2"></rect><rect class="bar" x="0" y="0" width="30.0" height="8" rx="2"></rect></svg>"#);
    insta::assert_snapshot!(sentences(Label::DoesNotShow, &["a <b>".to_owned()], Say(Language::Arabic)).into_string(), @"<h4>ما لا يُثبته</h4><ul><li><bdi>a &lt;b&gt;</bdi></li></ul>");
    insta::assert_snapshot!(twins::path(&[0.5, 1.0, 7.5], say).into_string(), @r#"<svg class="chart" viewBox="0 0 440 250" role="img" aria-label="How the evidence grew"><line class="grid" x1="42" x2="428" y1="210" y2="210"></line><text class="tick end" x="36" y="213.5">10<tspan class="power" dy="-4">−2</tspan></text><line class="grid" x1="42" x2="428" y1="168.7" y2="168.7"></line><text class="tick end" x="36" y="172.2">10<tspan class="power" dy="-4">0</tspan></text><line class="grid" x1="42" x2="428" y1="127.5" y2="127.5"></line><text class="tick end" x="36" y="131">10<tspan class="power" dy="-4">2</tspan></text><line class="grid" x1="42" x2="428" y1="86.2" y2="86.2"></line><text class="tick end" x="36" y="89.7">10<tspan class="power" dy="-4">4</tspan></text><line class="grid" x1="42" x2="428" y1="44.9" y2="44.9"></line><text class="tick end" x="36" y="48.4">10<tspan class="power" dy="-4">6</tspan></text><line class="zero" x1="42" x2="428" y1="168.7" y2="168.7"></line><line class="threshold" x1="42" x2="428" y1="44.9" y2="44.9"></line><text class="threshold end" x="426" y="40.9">one in a million</text><path class="evidence" d="M42 168.7L170.7 158.4L299.3 148.1L428 14"></path><text class="tick start" x="42" y="224">0</text><text class="tick end" x="428" y="224">3</text><text class="axis middle" x="235" y="242">Pairs</text></svg>"#);
    insta::assert_snapshot!(twins::differences(&[0.5, 1.0, -0.2], say).into_string(), @r#"<svg class="chart" viewBox="0 0 440 250" role="img" aria-label="Does the suspect prefer what was served?"><line class="grid" x1="42" x2="428" y1="210" y2="210"></line><text class="tick end" x="36" y="213.5">0</text><line class="grid" x1="42" x2="428" y1="112" y2="112"></line><text class="tick end" x="36" y="115.5">0.5</text><line class="grid" x1="42" x2="428" y1="14" y2="14"></line><text class="tick end" x="36" y="17.5">1</text><rect class="twin" x="194.1" y="14" width="12.8" height="196"><title>1</title></rect><rect class="served" x="332" y="14" width="12.8" height="196"><title>1</title></rect><rect class="served" x="414.7" y="14" width="12.8" height="196"><title>1</title></rect><path class="chance" d="M42 210V112H55.8V210H69.6V210H83.4V210H97.1V210H110.9V210H124.7V112H138.5V210H152.3V210H166.1V210H179.9V210H193.6V112H207.4V210H221.2V210H235V210H248.8V210H262.6V112H276.4V210H290.1V210H303.9V210H317.7V210H331.5V112H345.3V210H359.1V210H372.9V210H386.6V210H400.4V210H414.2V112H428V210"></path><line class="zero" x1="235" x2="235" y1="8" y2="210"></line><text class="tick start" x="42" y="224">−1.00</text><text class="tick middle" x="235" y="224">0</text><text class="tick end" x="428" y="224">+1.00</text><text class="axis start" x="42" y="242">← prefers the twin</text><text class="axis end" x="428" y="242">prefers the served →</text></svg>"#);
    let timeline = Timeline {
        unit: "exchanges".to_owned(),
        series: vec!["a".to_owned()],
        buckets: vec![TimelineBucket { start: at(0), counts: BTreeMap::from([("a".to_owned(), 3)]) }],
        marks: Vec::new(),
    };
    insta::assert_snapshot!(timeline::draw(&timeline, &[], "others").into_string(), @r#"
<div class="scroll"><svg class="chart wide" viewBox="0 0 920 300" role="img" aria-label="exchanges"><text class="axis" x="0" y="11">exchanges</text><line class="grid" x1="56" x2="912" y1="266" y2="266"></line><text class="tick end" x="50" y="269.5">0</text><line class="grid" x1="56" x2="912" y1="184.7" y2="184.7"></line><text class="tick end" x="50" y="188.2">1</text><line class="grid" x1="56" x2="912" y1="103.3" y2="103.3"></line><text class="tick end" x="50" y="106.8">2</text><line class="grid" x1="56" x2="912" y1="22" y2="22"></line><text class="tick end" x="50" y="25.5">3</text><g><title>2026-01-01T00:00:00Z
a: 3</title><rect class="s0" x="56" y="22" width="855.4" height="244"></rect></g><text class="tick start" x="56" y="282">01-01 00:00</text><text class="tick middle" x="227.2" y="282">01-01 00:12</text><text class="tick middle" x="398.4" y="282">01-01 00:24</text><text class="tick middle" x="569.6" y="282">01-01 00:36</text><text class="tick middle" x="740.8" y="282">01-01 00:48</text><text class="tick end" x="912" y="282">01-01 01:00</text></svg></div><ul class="legend"><li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="s0" width="10" height="10" rx="2"></rect></svg> <bdi>a</bdi></li></ul>
    "#);
}

#[test]
fn a_dossier_survives_its_json() {
    let dossier = sample(Language::Arabic);
    let json = dossier.to_json();
    assert!(json.lines().count() > 1_000);
    assert_eq!(serde_json::from_str::<Dossier>(&json).unwrap().to_json(), json);
}
