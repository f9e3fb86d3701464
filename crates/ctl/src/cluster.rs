//! member list.

use crate::{Exit, config::Session, kv, print::Answer};

pub(crate) async fn member_list(mut session: Session) -> Result<(), Exit> {
    let linearizable = !kv::serializable(&session.parsed)?;
    let (client, printer) = session.connect()?;
    let response = client.member_list(linearizable).await.map_err(Exit::error)?;
    session.print(&printer, &Answer::Members(response))
}
