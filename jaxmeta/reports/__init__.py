"""Reports: what a run found, as numbers, as text and as a page with pictures."""

from jaxmeta.reports._figures import draw_figure as draw_figure
from jaxmeta.reports._figures import points_of as points_of
from jaxmeta.reports._findings import Findings as Findings
from jaxmeta.reports._findings import Tested as Tested
from jaxmeta.reports._page import write_page as write_page
from jaxmeta.reports._policies import examine_policy as examine_policy
from jaxmeta.reports._policies import measure_scale as measure_scale
from jaxmeta.reports._policies import test_policy as test_policy
from jaxmeta.reports._policy_table import PolicyRun as PolicyRun
from jaxmeta.reports._policy_table import draw_policies as draw_policies
from jaxmeta.reports._policy_table import policy_tables as policy_tables
from jaxmeta.reports._predictions import check_predictions_path as check_predictions_path
from jaxmeta.reports._predictions import write_predictions as write_predictions
from jaxmeta.reports._report import Report as Report
from jaxmeta.reports._report import facts_of as facts_of
from jaxmeta.reports._returns import Returns as Returns
from jaxmeta.reports._tasks import examine_tasks as examine_tasks
from jaxmeta.reports._tasks import test_on_tasks as test_on_tasks
from jaxmeta.reports._words import aligned as aligned
from jaxmeta.reports._words import effort as effort
from jaxmeta.reports._words import headline as headline
from jaxmeta.reports._words import monitored as monitored
from jaxmeta.reports._words import show as show
from jaxmeta.reports._words import task_name as task_name
from jaxmeta.reports._write import write_report as write_report
