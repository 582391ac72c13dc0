//! A request by HTTP/2, whose fields may hold any bytes: the service behind the gate speaks HTTP/1.1, where some of them
//! would end a line. An input is fields (`name` 0x1f `value`), each ended by 0x1e, and after a 0x1d the body.

use super::world::World;
use super::{MANAGED, Outcome, is_by_the_letter, must};

const FIELD_ENDS: u8 = 0x1e;
const NAME_ENDS: u8 = 0x1f;
const HEAD_ENDS: u8 = 0x1d;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// What a frame holds at most, and what fits into one byte and two more as a length.
const LARGEST: usize = 16_000;

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The property of one request by HTTP/2.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], world: &mut World) -> Outcome {
    let end = data.iter().position(|byte| *byte == HEAD_ENDS);
    let (head, body) = end.map_or((data, &[][..]), |at| data.split_at(at));
    let body = body.get(1..).unwrap_or_default();
    let fields: Fields<'_> = head.split(|byte| *byte == FIELD_ENDS).filter_map(|field| pair(field)).collect();
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    if block.len() > LARGEST || body.len() > LARGEST {
        return Ok(());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS | if body.is_empty() { END_STREAM } else { 0 }, 1, &block));
    if !body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, 1, body));
    }
    let seen = world.exchange(&bytes, is_over).map_err(|error| format!("{error:#}"))?;
    is_by_the_letter(&seen)?;
    must!(seen.messages.len() <= 1, "one stream became {:?}", seen.messages);
    let Some(message) = seen.messages.first() else { return Ok(()) };
    let pseudo = |wanted: &[u8]| -> Vec<&[u8]> {
        fields.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value).collect()
    };
    must!(pseudo(b":method") == [message.method.as_bytes()], "{:?} became {message:?}", pseudo(b":method"));
    let target = pseudo(b":path").first().map(|path| path.split(|byte| *byte == b'#').next().unwrap_or_default());
    must!(target == Some(message.target.as_bytes()), "{target:?} became {message:?}");
    let hosts = [pseudo(b":authority"), pseudo(b"host")].concat();
    must!(
        hosts.iter().all(|host| message.values("host")[0].eq_ignore_ascii_case(host)),
        "{hosts:?} became {message:?}"
    );
    must!(message.body == body, "{} became {message:?}", body.escape_ascii());
    let mut asked: Vec<(String, Vec<u8>)> = fields
        .iter()
        .filter(|(name, _)| !name.starts_with(b":"))
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
        .filter(|(name, _)| !MANAGED.contains(&name.as_str()))
        .collect();
    let mut got = message.headers.clone();
    got.retain(|(name, _)| !MANAGED.contains(&name.as_str()));
    asked.sort();
    got.sort();
    must!(asked == got, "the fields {asked:?} became {got:?}");
    Ok(())
}

fn pair(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = field.iter().position(|byte| *byte == NAME_ENDS)?;
    Some((field.get(..at)?, field.get(at + 1..)?))
}

/// RFC 7541 §6.2.2: a field that enters no table, name and value as they are.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [&length(text.len())[..], text].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

/// RFC 7541 §5.1, with a prefix of seven bits.
fn length(length: usize) -> Vec<u8> {
    let Some(mut rest) = length.checked_sub(127) else { return vec![u8::try_from(length).unwrap_or(0)] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap_or(0));
    bytes
}

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(0).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], content].concat()
}

/// The stream has ended, or the connection is about to.
fn is_over(answers: &[u8]) -> bool {
    let mut rest = answers;
    while let [a, b, c, kind, flags, _, _, _, stream, content @ ..] = rest {
        let ended = matches!(*kind, HEADERS | DATA) && flags & END_STREAM != 0 && *stream == 1;
        if ended || matches!(*kind, RST_STREAM | GOAWAY) {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        rest = content.get(length..).unwrap_or_default();
    }
    false
}
