//! The table format, and the rows that the simple format prints as well.

use super::Answer;

/// Heads and rows; each row has as many cells as there are heads.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// The columns and rows of an answer, if it has such a form.
pub(super) fn rows(answer: &Answer) -> Option<Table> {
    Some(match answer {
        Answer::Members(members) => {
            let columns =
                ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"].to_vec();
            let row = |member: &proto::etcdserverpb::Member| {
                let status = if member.name.is_empty() { "unstarted" } else { "started" };
                vec![
                    format!("{:x}", member.id),
                    status.to_owned(),
                    member.name.clone(),
                    member.peer_ur_ls.join(","),
                    member.client_ur_ls.join(","),
                    member.is_learner.to_string(),
                ]
            };
            Table { columns, rows: members.members.iter().map(row).collect() }
        }
        Answer::Health(endpoints) => {
            let row = |health: &super::Health| {
                let healthy = health.healthy.to_string();
                vec![health.endpoint.clone(), healthy, health.took.clone(), health.error.clone()]
            };
            let columns = ["endpoint", "health", "took", "error"].to_vec();
            Table { columns, rows: endpoints.iter().map(row).collect() }
        }
        Answer::Status(endpoints) => {
            let columns = [
                "endpoint",
                "ID",
                "version",
                "storage version",
                "db size",
                "in use",
                "percentage not in use",
                "quota",
                "is leader",
                "is learner",
                "raft term",
                "raft index",
                "raft applied index",
                "errors",
                "downgrade target version",
                "downgrade enabled",
            ]
            .to_vec();
            Table { columns, rows: endpoints.iter().map(status_row).collect() }
        }
        Answer::HashKv(endpoints) => {
            let row = |(endpoint, hash): &(String, proto::etcdserverpb::HashKvResponse)| {
                vec![endpoint.clone(), hash.hash.to_string(), hash.hash_revision.to_string()]
            };
            let columns = ["endpoint", "hash", "hash revision"].to_vec();
            Table { columns, rows: endpoints.iter().map(row).collect() }
        }
        _ => return None,
    })
}

fn status_row((endpoint, status): &(String, proto::etcdserverpb::StatusResponse)) -> Vec<String> {
    let member = status.header.as_ref().map_or(0, |header| header.member_id);
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    let used = status.db_size_in_use.saturating_mul(100).checked_div(status.db_size);
    vec![
        endpoint.clone(),
        format!("{member:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        size(status.db_size),
        size(status.db_size_in_use),
        format!("{}%", 100 - used.unwrap_or(100)),
        size(status.db_size_quota),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// A size in bytes with a decimal unit and at most one decimal: `20 kB`, `2.1 GB`.
pub(crate) fn size(bytes: i64) -> String {
    // Go converts the signed size to an unsigned one; sizes are never negative.
    let bytes = u64::try_from(bytes).unwrap_or(0);
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut factor) = (0, 1u64);
    while bytes / factor >= 1000 {
        factor *= 1000;
        unit += 1;
    }
    let value = (bytes as f64 / factor as f64 * 10.0 + 0.5).floor() / 10.0;
    let unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][unit];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

pub(super) fn print(answer: &Answer) -> Option<String> {
    rows(answer).map(|table| draw(&table))
}

/// The table in a frame.
pub(crate) fn draw(table: &Table) -> String {
    let heads: Vec<_> = table.columns.iter().map(|column| column.to_uppercase()).collect();
    let width = |text: &String| text.chars().count();
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let cells = table.rows.iter().map(|row| width(&row[column]));
            cells.chain([width(head)]).max().expect("there is the head")
        })
        .collect();
    let border = |left: &str, middle: &str, right: &str| {
        let bars: Vec<_> = widths.iter().map(|&width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", bars.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));
    let mut out = border("┌", "┬", "┐");
    out +=
        &line(heads.iter().zip(&widths).map(|(head, &width)| format!("{head:^width$}")).collect());
    out += &border("├", "┼", "┤");
    for row in &table.rows {
        out += &line(
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect(),
        );
    }
    out += &border("└", "┴", "┘");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (9_960, "10 kB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
