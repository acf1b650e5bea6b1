//! Parts of items, written without making another item: the projection's tree and the item are walked
//! side by side. What is not there is left out, and what is wanted of a list closes ranks.

use super::{write_string, write_value};
use crate::expression::{Part, Projection};
use evenkeel_expression::Step;
use evenkeel_model::{ArchivedAttribute, ArchivedAttributeValue as Value};

/// Whether anything of what is wanted is there.
pub fn any(entries: &[ArchivedAttribute], wanted: &Projection) -> bool {
    parts_of_entries(entries, wanted).next().is_some()
}

/// Writes what is wanted of the entries of an item or map, as a JSON object.
pub fn write_entries(out: &mut Vec<u8>, entries: &[ArchivedAttribute], wanted: &Projection) {
    out.push(b'{');
    for (index, (entry, part)) in parts_of_entries(entries, wanted).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, &entry.name);
        out.push(b':');
        write_part(out, &entry.value, part);
    }
    out.push(b'}');
}

fn parts_of_entries<'a>(
    entries: &'a [ArchivedAttribute],
    wanted: &'a Projection,
) -> impl Iterator<Item = (&'a ArchivedAttribute, &'a Part)> {
    wanted.parts.iter().filter_map(|(step, part)| {
        let Step::Name(name) = step else { return None };
        let at = entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        holds(&entries[at].value, part).then_some((&entries[at], part))
    })
}

fn parts_of_elements<'a>(
    elements: &'a [Value],
    wanted: &'a Projection,
) -> impl Iterator<Item = (&'a Value, &'a Part)> {
    wanted.parts.iter().filter_map(|(step, part)| {
        let Step::Index(index) = step else { return None };
        let element = elements.get(*index as usize)?;
        holds(element, part).then_some((element, part))
    })
}

/// Whether anything of a part is there. The path is at most as deep as items nest.
fn holds(value: &Value, part: &Part) -> bool {
    match (part, value) {
        (Part::Whole, _) => true,
        (Part::Parts(wanted), Value::M(entries)) => any(entries, wanted),
        (Part::Parts(wanted), Value::L(elements)) => parts_of_elements(elements, wanted).next().is_some(),
        (Part::Parts(_), _) => false,
    }
}

fn write_part(out: &mut Vec<u8>, value: &Value, part: &Part) {
    match (part, value) {
        (Part::Parts(wanted), Value::M(entries)) => {
            out.extend_from_slice(b"{\"M\":");
            write_entries(out, entries, wanted);
            out.push(b'}');
        }
        (Part::Parts(wanted), Value::L(elements)) => {
            out.extend_from_slice(b"{\"L\":[");
            for (index, (element, part)) in parts_of_elements(elements, wanted).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_part(out, element, part);
            }
            out.extend_from_slice(b"]}");
        }
        _ => write_value(out, value),
    }
}
