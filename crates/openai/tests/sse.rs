//! The SSE codec.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use anbiq_openai::sse::{self, Decoder, Event};
use proptest::prelude::*;

fn decode(pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new(1 << 16);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events).unwrap();
    }
    events
}

fn data(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

#[test]
fn events_are_read_as_the_standard_says() {
    for (bytes, expected) in [
        ("data: a\n\ndata: b\n\n", vec!["a", "b"]),
        ("data: a\r\n\r\ndata: b\r\r", vec!["a", "b"]),
        ("\u{feff}data: a\n\n", vec!["a"]),
        ("data:a\n\n", vec!["a"]),
        ("data:  a\n\n", vec![" a"]),
        ("data: a\ndata: b\n\n", vec!["a\nb"]),
        ("data\n\n", vec![""]),
        (": comment\n\ndata: a\nid: 1\nretry: 5\n\n", vec!["a"]),
        ("event: x\n\ndata: a\n\n", vec!["a"]),
        ("data: not ended", vec![]),
        ("data: [DONE]\n\n", vec![sse::DONE]),
    ] {
        assert_eq!(data(&decode(&[bytes.as_bytes()])), expected, "{bytes:?}");
    }
}

#[test]
fn a_long_event_is_refused() {
    let mut decoder = Decoder::new(10);
    assert!(decoder.push(b"data: 12345678901234567890", &mut Vec::new()).is_err());
    let mut decoder = Decoder::new(10);
    assert!(decoder.push(b"data:1234\ndata:1234\ndata:1234\n", &mut Vec::new()).is_err());
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(b"data: ".to_vec()),
        Just(b"event: ".to_vec()),
        Just(b": ".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just("é漢🙂\u{feff}".as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn the_cut_does_not_matter(bytes in stream(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decode(&pieces), decode(&[&bytes]));
    }

    #[test]
    fn what_is_encoded_is_decoded(texts in proptest::collection::vec("[^\r]{0,20}", 0..6)) {
        let bytes: Vec<u8> = texts.iter().flat_map(|text| sse::encode(text)).collect();
        let events = decode(&[&bytes]);
        prop_assert_eq!(data(&events), texts.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
