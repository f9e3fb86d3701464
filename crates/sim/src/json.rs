//! JSON as far as it is written here: objects of texts and numbers, one on each line.

use std::fmt::Write as _;

/// A JSON object under construction.
pub struct Object(String);

impl Object {
    /// Nothing in it yet.
    pub fn new() -> Object {
        Object("{".to_owned())
    }

    fn name(&mut self, name: &str) -> &mut Object {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(&mut self.0, name);
        self.0.push(':');
        self
    }

    /// A text under a name.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Object {
        quote(&mut self.name(name).0, text);
        self
    }

    /// A number under a name.
    pub fn number(&mut self, name: &str, number: u64) -> &mut Object {
        self.name(name).0.push_str(&number.to_string());
        self
    }

    /// True or false under a name.
    pub fn flag(&mut self, name: &str, flag: bool) -> &mut Object {
        self.name(name).0.push_str(if flag { "true" } else { "false" });
        self
    }

    /// Texts under a name.
    pub fn list(&mut self, name: &str, texts: &[&str]) -> &mut Object {
        self.name(name).0.push('[');
        for (place, text) in texts.iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            quote(&mut self.0, text);
        }
        self.0.push(']');
        self
    }

    /// The object, on a line of its own.
    pub fn close(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => {
                let _fits_a_string = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_control_characters_are_escaped() {
        let mut object = Object::new();
        object.text("a", "\"\\\n\u{1}→").number("n", 7).flag("f", false).list("l", &["x", "y"]);
        let wanted = "{\"a\":\"\\\"\\\\\\n\\u0001→\",\"n\":7,\"f\":false,\"l\":[\"x\",\"y\"]}\n";
        assert_eq!(object.close(), wanted);
    }
}
