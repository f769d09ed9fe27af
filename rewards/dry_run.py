"""The check's last step: follows a program with stand-ins for its tensors, to bound what running it can cost.

The rules before it look at each line alone. Followed from call to call and pass to pass, a program shows what no
single line does: loops in helpers called from loops, whole numbers and lists that double, sizes that multiply, a
list that grows while it is looped over, and tensors changed in place under another name. Every step is counted, so
the walk ends in bounded time. No operator of torch runs, and nothing of the program is executed.

Not covered: sizes that come from broadcasting, which only a trace sees.
"""

import ast
from collections.abc import Iterable, Mapping

from rewards.dry_calls import DryCalls
from rewards.dry_expressions import Stop
from rewards.expressions import Violation
from rewards.source import ENTRY_POINT
from rewards.stand_ins import Frame, Function, Tensor, either, truth


def dry_run(tree: ast.Module, bindings: Mapping[str, str | None], dims: Mapping[str, int]) -> list[Violation]:
    """Violations that only following the program shows; for a program that broke no other rule.

    Args:
        bindings: imported name -> dotted path, prelude included.
        dims: name of every signal -> its width.
    """
    run = _DryRun(bindings)
    try:
        module = Frame(None)
        run.block(tree.body, module, [])
        run.constants_are_outer(module)
        entry = module.names.get(ENTRY_POINT)
        if isinstance(entry, Function) and isinstance(entry.node, ast.FunctionDef):
            names = [item.arg for item in entry.node.args.args]
            signals = {name: Tensor(frozenset((f"the argument '{name}'",)), dims.get(name)) for name in names}
            run.call(entry, [], signals, entry.node)
    except Stop as stop:
        run.violations.append(stop.violation)
    except RecursionError:
        hint = "write the computation out in fewer nested calls"
        run.violations.append(Violation(run.line, "R102", "calls and expressions are nested too deeply.", hint))
    return run.violations


class _DryRun(DryCalls):
    """Follows statements."""

    def constants_are_outer(self, module: Frame) -> None:
        """From here on, what the module made is constant."""
        self._shared = frozenset[str]()
        todo = list(module.names.values())
        while todo:
            value = todo.pop()
            if isinstance(value, list | dict | tuple) and id(value) not in self._outer:
                self._outer[id(value)] = value
                todo.extend(value.values() if isinstance(value, dict) else value)

    def block(self, body: Iterable[ast.stmt], frame: Frame, returned: list[object]) -> str:
        """Follow statements; "next", or how the block surely ends: "return", "break", "continue"."""
        for statement in body:
            self._step(statement)
            end = self._statement(statement, frame, returned)
            if end != "next":
                return end
        return "next"

    def _statement(self, node: ast.stmt, frame: Frame, returned: list[object]) -> str:
        if isinstance(node, ast.Return):
            returned.append(None if node.value is None else self.value(node.value, frame))
            return "return"
        if isinstance(node, ast.Break | ast.Continue):
            return type(node).__name__.lower()
        if isinstance(node, ast.If):
            return self._if(node, frame, returned)
        if isinstance(node, ast.For):
            return self._for(node, frame, returned)
        if isinstance(node, ast.With):
            return self.block(node.body, frame, returned)
        if isinstance(node, ast.FunctionDef):
            frame.names[node.name] = Function(node, frame)
        elif isinstance(node, ast.Assign):
            value = self.value(node.value, frame)
            for target in node.targets:
                self._assign(target, value, frame)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, self.value(node.value, frame), frame)
        elif isinstance(node, ast.AugAssign):
            self._augment(node, frame)
        elif isinstance(node, ast.Expr):
            self.value(node.value, frame)
        return "next"

    def _if(self, node: ast.If, frame: Frame, returned: list[object]) -> str:
        taken = truth(self.value(node.test, frame))
        if taken is not None:
            return self.block(node.body if taken else node.orelse, frame, returned)
        before = dict(frame.names)
        first = self.block(node.body, frame, returned)
        after, frame.names = frame.names, before
        second = self.block(node.orelse, frame, returned)
        if first != "next":
            return second if second == "next" else "next" if first != second else first
        if second != "next":
            frame.names = after
            return "next"
        for name, value in after.items():
            frame.names[name] = either(value, frame.names[name]) if name in frame.names else value
        return "next"

    def _for(self, node: ast.For, frame: Frame, returned: list[object]) -> str:
        for element in self._elements(self.value(node.iter, frame)):
            self._assign(node.target, element, frame)
            end = self.block(node.body, frame, returned)
            if end == "return":
                return end
            if end == "break":
                return "next"
        return self.block(node.orelse, frame, returned)

    def _augment(self, node: ast.AugAssign, frame: Frame) -> None:
        before = self.value(node.target, frame)
        value = self._binary(type(node.op).__name__, before, self.value(node.value, frame))
        if isinstance(before, Tensor | list):
            self._refuse_write(before)
            value = before if isinstance(before, Tensor) else value
        if isinstance(node.target, ast.Name):
            frame.names[node.target.id] = value
        elif not isinstance(before, Tensor):
            self._assign(node.target, value, frame)
