"""Survey runs: stores of stamps, fitted batch by batch to parts, nothing lost."""

from diffdeblend.survey.catalog import Merged as Merged
from diffdeblend.survey.catalog import merge_parts as merge_parts
from diffdeblend.survey.cluster import on_cluster as on_cluster
from diffdeblend.survey.covariance import flux_covariance as flux_covariance
from diffdeblend.survey.engine import in_process as in_process
from diffdeblend.survey.fit_survey import SurveyRun as SurveyRun
from diffdeblend.survey.fit_survey import fit_survey as fit_survey
from diffdeblend.survey.hats import write_hats as write_hats
from diffdeblend.survey.settings import FitSettings as FitSettings
from diffdeblend.survey.summary import summarise as summarise
from diffdeblend.survey.summary import write_summary as write_summary
