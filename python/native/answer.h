// What a coroutine awaits until its request has ended: as asyncio's own futures are (asyncio.isfuture()), but that it
// belongs to one request and one awaiting coroutine, cancels the one when the other goes away, and resumes it at once.
//
// A future that gets its result asks its loop for one more round, in which the task goes on; and what that round and a
// coroutine around the future run is Python that a model's step has pushed out of the processor's caches. Here the loop
// has come for the engine's events and for nothing else, so that the task goes on in the callback that takes them.
#pragma once

#include <nanobind/nanobind.h>

#include "submission.h"

namespace inferneo::python {

// Answer(loop, waiters, request): `waiters` is the loop's dict of its requests, in which the caller has put the answer
// under the id `request`, and from which it takes itself when it is cancelled or closed before the end. `ticket`, once
// set, is asked to cancel() then. All on the loop's thread.
bool is_answer(nanobind::handle object);
nanobind::object make_answer(nanobind::handle loop, nanobind::handle waiters, nanobind::handle request);
// Instead of the attribute: no object of Python's is made for it.
void set_ticket(nanobind::handle answer, PyTicket ticket);

// The request has ended, and is no longer among `waiters`. Whoever awaits it goes on before this returns, so call it in
// a callback of the loop, never within a task. Throws nanobind::python_error for what a task lets through
// (KeyboardInterrupt, SystemExit).
void give_result(nanobind::handle answer, nanobind::object result);
void give_error(nanobind::handle answer, nanobind::object exception);

void bind_answer(nanobind::module_& module);

}  // namespace inferneo::python
